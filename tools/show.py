"""What a run and an inspection look like on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.table import Table
from rich.text import Text

from ..passes.errors import printable
from ..passes.selection.presets import most_sensitive
from ..pipeline.sweep import budget_words
from ..runtime.figures import count, digits, listed, nearness, pinned_words, shortened, shortened_inside, took
from ..runtime.measure.metric import metric_words, title
from ..runtime.measure.sensitivity import LEVELS
from ..runtime.soundness import why_nothing
from .process.console import terminal

if TYPE_CHECKING:
    from ..passes.channels.groups import ChannelGroup
    from ..pipeline.report import Report
    from ..pipeline.sweep import Sweep
    from ..pipeline.write import Result
    from ..runtime.analysis import Analysis
    from ..runtime.measure.sensitivity import Sensitivities

_NO_FASTER = 0.98  # of the time before
_MANY = 40  # group rows shown in full; more are summed up
_KINDS = {"kl": "KL divergence of the outputs, nats a sample", "relative mse": "relative squared error of the outputs"}


def print_result(result: Result, target: Path, plan_file: Path | None) -> None:
    """Groups with units before and after, then what it brought."""
    report, console = result.report, terminal()
    changed = [row for row in report.groups if row.after < row.before]
    table = Table(title=f"{report.model}: channels", title_justify="left", show_edge=False, pad_edge=False)
    for heading, justify in (("group", "left"), ("before", "right"), ("after", "right"), ("kept", "right")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in changed[:_MANY]:
        table.add_row(Text(shortened(row.name)), str(row.before), str(row.after), f"{row.after / row.before:.0%}")
    if len(changed) > _MANY:
        rest = changed[_MANY:]
        before, after = sum(r.before for r in rest), sum(r.after for r in rest)
        table.add_row(Text(f"... {len(rest)} more groups"), str(before), str(after), f"{after / before:.0%}")
    if changed:
        console.print(table)
    pinned = [row for row in report.groups if row.pinned is not None]
    if pinned:
        console.print(
            Text(f"{pinned_words(len(pinned), len(report.groups))} (onnx-prune inspect says why)", style="dim")
        )
    console.print()
    console.print(_summary(result))
    for line in _remarks(result):
        console.print(line)
    console.print()
    console.print(Text.assemble("wrote ", (str(target), "bold"), f" and {plan_file}" if plan_file else ""))


def _remarks(result: Result) -> Iterator[Text]:
    """What is to be said below the tables, a line each."""
    plan, report = result.plan, result.report
    yield Text(
        f"criterion {plan.criterion}, allocation {plan.allocation}, reconstruction {plan.reconstruct}; "
        f"proof error {report.proof:.1e}; {took(report.seconds)}"
    )
    if report.data is not None:
        yield Text(f"decided on {report.data}")
    if report.compared is not None and report.compared[1] and report.inner is not None:
        yield Text(f"{report.compared[0]} of {report.compared[1]} cut tensors compared, worst {report.inner:.0e}")
    yield from _of_the_cut(report)
    near = nearness(report.same_class, report.distance, report.samples or 0)
    if near is not None:
        yield Text(near)
    sizes = smaller_sizes(report.proved_at) if report.proved_at else sizes_in_words(report.inputs, report.free)
    if sizes is not None:
        yield Text(sizes, style="dim")
    if report.refit not in (None, "kept"):
        left = report.refit.startswith(("kept", "left"))
        yield Text(f"the refit was {report.refit}" if left else report.refit, style="yellow")
    if report.measured_on is not None:
        yield Text(f"latency on {report.measured_on}", style="dim")
    if _was_cut(report) and report.latency_ratio is not None and report.latency_ratio > _NO_FASTER:
        yield Text("no faster than before: the layers that were cut are not what this model spends its time on")
    if report.head is not None:
        yield Text("the head was replaced by pooling and one linear layer: not a cut, and not proved; fine-tune it")


def _of_the_cut(report: Report) -> Iterator[Text]:
    """What the table of groups does not say."""
    if not _was_cut(report):
        yield Text("nothing was cut: the model is already below the budget", style="yellow")
    if report.gone:
        yield Text(f"gone entirely, with all that served them alone: {listed(list(report.gone))}")


def _was_cut(report: Report) -> bool:
    return report.macs[0] != report.macs[1] or any(row.after < row.before for row in report.groups)


def _summary(result: Result) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for heading, justify in (("", "left"), ("before", "right"), ("after", "right"), ("kept", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in result.report.summary():
        table.add_row(*row)
    return table


def inspection_dict(analysis: Analysis) -> dict[str, Any]:
    """What `inspect --json` prints."""
    cost, entirely = analysis.cost, analysis.cost.vanishing.reasons
    return {
        "model": analysis.name,
        "opset": analysis.graph.opset,
        "nodes": len(analysis.graph.gs.nodes),
        "macs": cost.macs(cost.units),
        "params": cost.params(cost.units),
        "groups": [
            {
                "name": g.name,
                "units": g.units,
                "pinned": g.pinned,
                "may_go": not g.pinned and entirely[g.name] is None,
                "keeps_one": entirely.get(g.name),
                "members": [
                    {"constant": name, "axis": axis, "slices_per_unit": int(index.shape[1]), "role": _role(g, key)}
                    for key, index in g.slices.items()
                    for name, _, axis in [key]
                ],
            }
            for g in analysis.groups.groups
        ],
    }


def _role(group: ChannelGroup, key: tuple[str, str, int]) -> str:
    return "produced" if key in group.produced else "consumed" if key in group.consumed else "carried"


def print_inspection(analysis: Analysis, *, members: bool) -> None:
    console = terminal()
    cost = analysis.cost
    whole = cost.macs(cost.units)
    console.print(
        Text.assemble(
            (analysis.name, "bold"),
            f": {len(analysis.graph.gs.nodes)} nodes, opset {analysis.graph.opset}, "
            f"{count(whole)} MACs, {count(cost.params(cost.units))} parameters",
        )
    )
    sizes = sizes_in_words(analysis.sizes, analysis.free)
    if sizes is not None:
        console.print(Text(sizes, style="dim"))
    table = Table(show_edge=False, pad_edge=False)
    for heading, justify in (
        ("group", "left"),
        ("units", "right"),
        ("MACs a unit", "right"),
        ("entirely", "left"),
        ("pinned because", "left"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    entirely = cost.vanishing.reasons
    for index, g in enumerate(analysis.groups.groups):
        goes = "may go" if not g.pinned and entirely[g.name] is None else ""
        saved = "" if g.pinned else analysis.saving(index)
        pinned = Text(shortened_inside(g.pinned or ""), style="yellow")
        table.add_row(Text(shortened(g.name)), str(g.units), saved, goes, pinned)
        if members:
            for (name, _, axis), places in g.slices.items():
                role = _role(g, next(k for k in g.slices if k[0] == name and k[2] == axis))
                times = f" x{places.shape[1]}" if places.shape[1] > 1 else ""
                table.add_row(Text(f"  {shortened(name)} axis {axis}: {role}{times}", style="dim"), "", "", "", "")
    console.print(table)
    free = analysis.groups.free
    least = cost.macs(np.where(cost.vanishing.may_go, 0, np.where(cost.free, 1, cost.units)))
    if any(group.units > 1 for group in free):
        console.print(
            f"{len(free)} of {len(analysis.groups.groups)} groups can be pruned; "
            f"at most {_below_all(least, whole)} of the MACs can go"
        )
    else:
        console.print(Text(f"nothing in this graph can be removed: {why_nothing(analysis.groups)}"))
    if cost.vanishing.may_go.any():
        console.print(f"{int(cost.vanishing.may_go.sum())} of them may go entirely, with all that serves them alone")
    for reason, times in Counter(g.pinned for g in analysis.groups.groups if g.pinned).most_common():
        console.print(Text(f"  {times} pinned: {shortened_inside(reason)}", style="dim"))


def _below_all(least: float, whole: float) -> str:
    """The share that can go, with as many digits as tell it from all: 99.97%, not 100%."""
    stays = least / max(whole, 1)
    digits_needed = 0 if stays >= 0.01 or not stays else int(np.ceil(-np.log10(stays))) - 2
    scale = 10.0**digits_needed
    return f"{np.floor(100 * (1 - stays) * scale) / scale:.{digits_needed}f}%"


def smaller_sizes(proved_at: Mapping[str, tuple[int, ...]]) -> str:
    """That the proof and the latency are of smaller inputs."""
    sizes = ", ".join(f"{shortened(name)} {' x '.join(map(str, size))}" for name, size in proved_at.items())
    return f"proved and timed on smaller inputs, since a run at full size is heavy: {sizes}"


def sizes_in_words(inputs: Mapping[str, tuple[int, ...]], free: Sequence[str]) -> str | None:
    """For which sizes of the inputs MACs and milliseconds are told; None where the model fixes them."""
    if not free:
        return None
    sizes = ", ".join(f"{shortened(name)} {' x '.join(map(str, inputs[name]))}" for name in free)
    return f"MACs and latency are for inputs of this size: {sizes} (another: --size-of)"


def sensitivity_dict(analysis: Analysis, sensitivities: Sensitivities) -> dict[str, Any]:
    """What `sensitivity --json` prints: of each group divergence, and top-1, by the number of units that go."""
    told = {"divergence": sensitivities.values} | ({"top1": sensitivities.top1} if sensitivities.top1 else {})
    groups = [
        {"name": g.name, "units": g.units, **{k: {str(n): v for n, v in f[g.name].items()} for k, f in told.items()}}
        for g in analysis.groups.free
    ]
    return {"model": analysis.name, "kind": sensitivities.kind, "groups": groups}


def print_sensitivity(analysis: Analysis, sensitivities: Sensitivities, levels: Sequence[float] = LEVELS) -> None:
    """A row a group, in the order of the graph; the most sensitive ones stand out. With labels, accuracies below."""
    console, groups = terminal(), analysis.groups.free
    middle = {g.name: v[(len(v) - 1) // 2] for g in groups if (v := list(sensitivities.values[g.name].values()))}
    sensitive = most_sensitive(middle) if middle else frozenset()
    console.print(Text.assemble((analysis.name, "bold"), f": {_KINDS[sensitivities.kind]}"))
    console.print(_curves(analysis, sensitivities.values, (*levels, 1), "{:.2e}", sensitive))
    if sensitivities.top1:
        console.print(Text(f"\ntop-1, {next(iter(sensitivities.top1.values()))[0]:.2%} with nothing gone"))
        console.print(_curves(analysis, sensitivities.top1, (*levels, 1), "{:.2%}", sensitive))
    if sensitive:
        names = listed([g.name for g in groups if g.name in sensitive])
        console.print(Text(f"most sensitive: {names}", style="yellow"))


def _curves(
    analysis: Analysis, found: Mapping[str, Mapping[int, float]], levels: Sequence[float], form: str, marked: Set[str]
) -> Table:
    """A column a level."""
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("group", "units", *(f"{level:.3g}% gone" for level in (100 * share for share in levels))):
        table.add_column(heading, justify="left" if heading == "group" else "right", overflow="fold")
    for g in analysis.groups.free:
        values = [found[g.name].get(int(level * g.units)) if int(level * g.units) else None for level in levels]
        cells = ["" if value is None else form.format(value) for value in values]
        table.add_row(Text(shortened(g.name)), str(g.units), *cells, style="yellow" if g.name in marked else "")
    return table


def print_score(score: dict[str, Any]) -> None:
    """What `evaluate` found, in words."""
    if "metric" in score:
        click.echo(f"{title(score['metric'])}: {metric_words(score['metric'], score['value'])}")
        return
    if "top1" in score:
        click.echo(f"top-1 {score['top1']:.2%}, top-5 {score['top5']:.2%} of {score['samples']} samples")
        return
    click.echo(f"{_KINDS[score['kind']]}: {digits(score['value'])}, over {score['samples']} samples")
    if len(score["outputs"]) > 1:
        for name, value in score["outputs"].items():
            click.echo(printable(f"  {shortened(name)}: {digits(value)}"))


def print_sweep(found: Sweep, files: dict[int, str]) -> None:
    """A row a budget; * marks the front."""
    console = terminal()
    headings, rows = found.rows()
    table = Table(show_edge=False, pad_edge=False)
    for heading in (*headings, "file"):
        table.add_column(heading, justify="left" if heading in ("budget", "file") else "right", overflow="fold")
    for number, (row, point) in enumerate(zip(rows, found.points, strict=True)):
        table.add_row(*map(Text, row), Text(files.get(number, "")), style="bold" if point.front else "")
    console.print(table)
    for point in found.points:
        if point.missed is not None:
            console.print(Text(f"{budget_words(point.budget)}: {point.missed}", style="dim"))
