"""The page of a run, or of a sweep: one file that needs nothing else."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...passes.graph.files import write_text
from ...pipeline.report import Curves, Report
from ...pipeline.sweep import Sweep, budget_words
from ...pipeline.write import Result
from ...runtime.data.inputs import model_inputs, numeric_inputs
from ...runtime.figures import nearness, shortened, shortened_inside, took
from ...runtime.latency.profile import named, profile
from ...runtime.measure.metric import metric_words, title
from .charts import bars, lines, require_matplotlib, scatter
from .style import CSS, SCRIPT

_PACKAGES = ("onnx-prune", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "torch")
_KINDS = {"kl": "KL divergence, nats a sample", "relative mse": "relative squared error"}
_ON = "\\\n"  # a shell goes on in the next line
_PROFILED = 256 << 20  # bytes of a model whose nodes are timed for the report


@dataclass(frozen=True, slots=True)
class About:
    """How the run was made: the command that redoes it, and all its settings."""

    command: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_report(found: Result | Sweep, path: str | os.PathLike[str], about: About | None = None) -> Path:
    """Write the report of a result or a sweep. Raises UsageError without matplotlib, or where it cannot be written."""
    require_matplotlib()
    about = about or About()
    parts = _of_sweep(found, about) if isinstance(found, Sweep) else _of_result(found, about)
    return write_text(path, _page("onnx-prune", parts))


def _page(name: str, parts: Sequence[str]) -> str:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'  # asks for no file
    body = "\n".join(filter(None, parts))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}{icon}<title>{escape(name)}</title><style>{CSS}</style></head>\n'
        f"<body>\n{body}\n<script>{SCRIPT}</script></body></html>\n"
    )


def _of_result(result: Result, about: About) -> list[str]:
    report = result.report
    return [
        f"<h1>{escape(report.model)}</h1>",
        _cards(report),
        _remarks(report),
        _charts(_pictures(result)),
        "<h2>Channels</h2>",
        _groups(report),
        _made(about),
        _details("plan.json", result.plan.to_json()),
    ]


def _of_sweep(found: Sweep, about: About) -> list[str]:
    points = [(p, p.result.report) for p in found.met if p.result is not None]
    name = points[0][1].model if points else "sweep"
    headings, rows = found.rows()
    unit = "milliseconds" if any(report.latency for _, report in points) else "MACs"
    metric = next((report.metric for _, report in points if report.metric), None)
    kept = "nearness to the original" if metric is None else title(metric)
    factor, of_axis = _scale(metric)
    dots = [(p.spent, factor * p.kept, p.front, budget_words(p.budget)) for p, _ in points if p.kept is not None]
    charts = {f"{kept} against {unit}": scatter("pareto", dots, (unit, of_axis or kept))} if dots else {}
    return [
        f"<h1>{escape(name)}: sweep</h1>",
        _charts(charts | _curve_charts(found.curves)),
        "<h2>Models</h2>",
        _table(headings, [[(cell, None) for cell in row] for row in rows]),
        _made(about),
        *(_details(f"plan {budget_words(p.budget)}", p.result.plan.to_json()) for p, _ in points if p.result),
    ]


# ---- parts


def _cards(report: Report) -> str:
    cells = []
    for name, before, after, kept in report.summary():
        share = float(kept.rstrip("%")) if kept else None
        bar = "" if share is None else f'<div class="bar"><i style="width:{min(share, 100):.1f}%"></i></div>'
        cells.append(
            f'<div class="card"><small>{escape(name)}</small><b>{escape(kept or after)}</b>{bar}'
            f"<small>{escape(before)} → {escape(after)}</small></div>"
        )
    return f'<div class="cards">{"".join(cells)}</div>'


def _remarks(report: Report) -> str:
    said = [
        f"Proved against the original: largest difference {report.proof:.1e}." if np.isfinite(report.proof) else "",
        _near(report),
        "" if report.data is None else f"Chosen and refitted on {report.data}.",
        "" if report.measured_on is None else f"Latency on {report.measured_on}.",
        f"The run took {took(report.seconds)}." if report.seconds else "",
    ]
    return f"<p>{escape(' '.join(filter(None, said)))}</p>"


def _near(report: Report) -> str:
    near = nearness(report.same_class, report.distance, report.samples or 0)
    return "" if near is None else f"{near[0].upper()}{near[1:]}."


def _groups(report: Report) -> str:
    rows = []
    for group in report.groups:
        share = group.after / group.before if group.before else 1.0
        bar = f'<div class="bar"><i style="width:{share:.1%}"></i></div>'
        rows.append(
            [
                (shortened(group.name), group.name),
                (str(group.before), group.before),
                (str(group.after), group.after),
                (f"{share:.0%}", share),
                (bar, share),
                (shortened_inside(group.pinned or ""), group.pinned or ""),
            ]
        )
    return _table(["group", "before", "after", "kept", "", "pinned because"], rows, markup=4)


def _table(headings: Sequence[str], rows: Sequence[Sequence[tuple[str, object]]], markup: int | None = None) -> str:
    """Cells are (text, value to sort by or None); the column `markup` holds HTML already."""
    aligned = [' class="text"' if heading.startswith("pinned") else "" for heading in headings]
    head = "".join(
        f'<th scope="col"{side}><button type="button">{escape(heading) or "&nbsp;"}</button></th>'
        for heading, side in zip(headings, aligned, strict=True)
    )
    body = []
    for row in rows:
        cells = []
        for column, (text, value) in enumerate(row):
            sorts = "" if value is None else f' data-value="{escape(str(value))}"'
            cells.append(f"<td{sorts}{aligned[column]}>{text if column == markup else escape(text)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="table"><table class="sorts"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _charts(drawn: Mapping[str, str]) -> str:
    figures = (
        f"<figure>{_named(svg, words)}<figcaption>{escape(words[:1].upper() + words[1:])}</figcaption></figure>"
        for words, svg in drawn.items()
    )
    return f'<div class="charts">{"".join(figures)}</div>'


def _named(svg: str, words: str) -> str:
    """The drawing with a name for who cannot see it."""
    return svg.replace('role="img"', f'role="img" aria-label="{escape(words)}"', 1)


def _made(about: About) -> str:
    settings = [[(name, None), (str(value), None)] for name, value in sorted(about.settings.items())]
    packages = [[(name, None), (found, None)] for name in _PACKAGES if (found := _version(name))]
    packages.append([("python", None), (platform.python_version(), None)])
    command = (
        f"<h2>How it was made</h2><pre>{escape(about.command.replace(' --', f' {_ON}  --'))}</pre>"
        if about.command
        else ""
    )
    shown = (
        f"<details><summary>Settings</summary>{_table(['setting', 'value'], settings)}</details>" if settings else ""
    )
    return command + shown + f"<details><summary>Versions</summary>{_table(['package', 'version'], packages)}</details>"


def _details(name: str, text: str) -> str:
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# ---- charts of a run


def _pictures(result: Result) -> dict[str, str]:
    report = result.report
    found = _curve_charts(result.curves)
    if report.tries and report.metric and report.score:
        factor, axis = _scale(report.metric)
        dots = [(100 * t.macs, factor * t.score, t.holds, f"{t.macs:.0%}" if t.holds else "") for t in report.tries]
        name = f"{title(report.metric)} of what was tried; {metric_words(report.metric, report.score[1])} is kept"
        found[name] = scatter("tries", dots, ("MACs kept, %", axis), factor * report.score[0])
    if result.epochs:
        found |= _training(result.epochs)
    original = result.original
    if report.latency is not None and original is not None and report.size[0] < _PROFILED and numeric_inputs(original):
        times = _times(original, result.model, report.inputs)
        found["Where the time goes: milliseconds of a run, by operator"] = bars("time", times, "ms")
    return found


def _scale(metric: str | None) -> tuple[float, str]:
    """By what a metric's numbers are multiplied on an axis, and the axis' name: per cent for the built-in ones."""
    if metric is None:
        return 1.0, ""
    share = metric_words(metric, 1.0).endswith("%")
    return (100.0, f"{title(metric)}, %") if share else (1.0, title(metric))


def _curve_charts(curves: Curves) -> dict[str, str]:
    found = {}
    if curves.sensitivity:
        units = {name: len(harm) or max(curves.sensitivity.get(name, {1: 0})) for name, harm in curves.error.items()}
        drawn = {
            shortened(name, 30): ([100 * n / units.get(name, max(v)) for n in v], list(v.values()))
            for name, v in curves.sensitivity.items()
            if v
        }
        axes = ("units of the group gone, %", _KINDS.get(curves.kind or "", "divergence"))
        found["Sensitivity: how far the outputs move when one group alone is cut"] = lines(
            "sensitivity", drawn, axes, log=True
        )
    if curves.error:
        drawn = {
            shortened(name, 30): _error_curve(harm) for name, harm in curves.error.items() if len(harm) and harm[-1] > 0
        }
        if drawn:
            axes = ("units of the group gone, %", "estimated harm, of the whole group's")
            words = "The criterion's estimate of the harm, group by group"
            found[words] = lines("error", drawn, axes)
    return found


def _error_curve(harm: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most 65 points of a curve: share gone, share of the harm."""
    at = np.unique(np.linspace(0, len(harm) - 1, min(len(harm), 65)).astype(int))
    return [100 * (n + 1) / len(harm) for n in at], [harm[n] / harm[-1] for n in at]


def _training(epochs: Sequence[Any]) -> dict[str, str]:
    rows = [asdict(epoch) for epoch in epochs]
    numbered = list(enumerate(rows))
    loss = [(float(n), row["loss"]) for n, row in numbered if row["loss"] is not None]
    score = {
        name: [(float(n), 100 * row[key]) for n, row in numbered if row[key] is not None and row[key] >= 0]
        for name, key in (("training", "right"), ("evaluation", "score"))
    }
    found = {}
    if loss:
        found["Fine-tuning: loss"] = lines("loss", {"loss": _split(loss)}, ("epoch", "loss"), whole=True)
    if any(score.values()):
        drawn = {name: _split(points) for name, points in score.items() if points}
        found["Fine-tuning: accuracy"] = lines("accuracy", drawn, ("epoch", "%"), whole=True)
    return found


def _split(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _times(
    before: onnx.ModelProto, after: onnx.ModelProto, sizes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[float, float]]:
    """Operator -> milliseconds of a run, before and after."""
    rng = np.random.default_rng(0)
    feeds = {
        i.name: (rng.standard_normal(sizes[i.name]) if i.dtype.kind == "f" else np.zeros(sizes[i.name])).astype(i.dtype)
        for i in model_inputs(before)
        if i.name in sizes
    }
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for side, model in enumerate((before, after)):
        for node in profile(named(model), feeds, seconds=0.5):
            sums[node.op.removeprefix("nchwc.")][side] += node.ms
    return {op: (b, a) for op, (b, a) in sums.items()}
