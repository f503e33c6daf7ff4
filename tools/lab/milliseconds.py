"""What docs/latency.md says, measured anew: `python -m onnx_prune.tools.lab.milliseconds WHAT MODEL...`.

`shares`: time after half of the MACs. `budgets`: what `--latency` meets. `predictions`: of the latency model at random
widths. `solvers`: the two knapsacks on the same tables. `stairs`: a picture of one convolution's time by its widths.
Models are .onnx files, or skeletons (.onnx.gz) that the zoo's tool beside them fills. Everything is a ratio of
processor time on one thread, both models in turns in one run; each line is written as soon as it is known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import onnx

from ...passes.errors import OnnxPruneError
from ...passes.selection.budget import Budget
from ...passes.selection.knapsack import SOLVERS, Menu, total_harm
from ...passes.selection.latency_table import LatencyTable
from ...pipeline.prune import prune
from ...runtime.analysis import Analysis, analyse
from ...runtime.device import runtime_version
from ...runtime.latency.blocked import block_size
from ...runtime.latency.model import Place, measure_table, measured, random_widths, timed_nodes
from ...runtime.latency.pieces import Bench, Piece, pieces, time_pieces
from ...runtime.measure.latency import compare, machine, ratio
from .coverage import filled

_PLACE = Place("cpu", 1)
_TOGETHER, _SECONDS, _AGAIN = 4, 2.0, 3
_models = click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))


@click.group()
def milliseconds() -> None:
    """Figures of docs/latency.md."""
    click.echo(f"{machine()}, blocks of {block_size('cpu')} channels, ONNX Runtime {runtime_version()}, one thread")


@milliseconds.command()
@_models
@click.option("--macs", default="50%", show_default=True)
@click.option("--align", default="auto", show_default=True)
@click.option("--sessions", default=_AGAIN, show_default=True)
@click.option("--into", type=click.Path(path_type=Path), help="Lines go there too; models that it has are left out.")
def shares(models: Sequence[Path], macs: str, align: str, sessions: int, into: Path | None) -> None:
    """Time of models cut to a share of their MACs by weights alone, of the original's; median of the sessions."""
    done = {line.partition(":")[0] for line in _lines(into)}
    for path in models:
        if _name(path) not in done:
            aligned = "auto" if align == "auto" else int(align)
            _line(path, _cut(path, Budget(macs=macs), aligned, sessions), into)


@milliseconds.command()
@_models
@click.option("--latency", default="50%", show_default=True)
def budgets(models: Sequence[Path], latency: str) -> None:
    """Time of models cut to a share of their time by weights alone."""
    for path in models:
        _line(path, _cut(path, Budget(latency=latency), "auto", _AGAIN))


def _cut(path: Path, budget: Budget, align: int | str, sessions: int) -> str:
    model, start = _model(path), time.perf_counter()
    try:
        result = prune(model, budget=budget, criterion="l2", calibration="none", align=align, device="cpu")  # type: ignore[arg-type]
    except OnnxPruneError as error:
        return error.what
    took, report = time.perf_counter() - start, result.report
    analysis = analyse(model)
    found = [
        ratio(*compare([model, result.model], analysis.feeds, seconds=_SECONDS, device="cpu", threads=1))
        for _ in range(sessions)
    ]
    kept = report.macs[1] / max(report.macs[0], 1)
    said = "" if report.latency_ratio is None else f", {report.latency_ratio:.3f} as the run said"
    between = f"({min(found):.3f}..{max(found):.3f})"
    return f"{kept:.3f} of the MACs, {np.median(found):.3f} of the time {between}{said}; {took:.0f} s"


@milliseconds.command()
@_models
@click.option("--vectors", default=20, show_default=True)
def predictions(models: Sequence[Path], vectors: int) -> None:
    """Predicted for measured shares of the time at random widths, each group's drawn among the ends of its stairs."""
    for path in models:
        analysis, start = analyse(_model(path)), time.perf_counter()
        table = measure_table(analysis, _PLACE)
        took = time.perf_counter() - start
        errors = np.array(list(_errors(analysis, table, random_widths(analysis, table, vectors))))
        off = np.abs(errors)
        _line(
            path,
            f"mean {off.mean():.1%}, most {off.max():.1%}, bias {errors.mean():+.1%}, within 8 %: "
            f"{(off <= 0.08).sum()} of {len(off)}; timed in {took:.0f} s",
        )


def _errors(analysis: Analysis, table: LatencyTable, drawn: list[np.ndarray]) -> Iterator[float]:
    whole = table.milliseconds(table.units)
    for start in range(0, len(drawn), _TOGETHER):
        some = drawn[start : start + _TOGETHER]
        before, *after = measured(analysis, some, _PLACE, _SECONDS)
        for kept, timing in zip(some, after, strict=True):
            yield table.milliseconds(kept) / whole / ratio(before, timing) - 1


@milliseconds.command()
@_models
@click.option("--seed", default=0, show_default=True)
def solvers(models: Sequence[Path], seed: int) -> None:
    """Harm and seconds of each solver at 70, 50 and 35 % of the time, with drawn harms that grow with what goes."""
    for path in models:
        analysis = analyse(_model(path))
        table = timed_nodes(analysis, _PLACE)
        menu = _drawn_menus(analysis, table, seed)
        for share in (0.7, 0.5, 0.35):
            limit, said = share * table.milliseconds(table.units), []
            for name, solve in SOLVERS.items():
                start = time.perf_counter()
                kept = solve(table, menu, limit)
                harm = "none" if kept is None else f"{total_harm(menu, kept):.4f}"
                said.append(f"{name} {harm} in {time.perf_counter() - start:.2f} s")
            _line(path, f"{share:.0%} of the time, {len(menu)} groups: {', '.join(said)}")


def _drawn_menus(analysis: Analysis, table: LatencyTable, seed: int) -> list[Menu]:
    """Convex harms of drawn size: sensitivity * (share that goes) ** 1..3."""
    rng = np.random.default_rng(seed)
    found = []
    for group in np.flatnonzero(analysis.cost.free).tolist():
        widths = table.steps(group)
        gone = 1 - widths / int(table.units[group])
        found.append(Menu(group, widths, rng.lognormal(0.0, 1.0) * gone ** rng.uniform(1.0, 3.0)))
    return found


@milliseconds.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--channels", default=64, show_default=True)
@click.option("--size", default=28, show_default=True)
def stairs(target: Path, channels: int, size: int) -> None:
    """Draw the time of a 3x3 convolution and of a depthwise one at every width, as an SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = [figure.add_subplot(1, 3, place) for place in (1, 2, 3)]  # type: ignore[call-arg] - stubs lag behind
    widths = np.arange(1, channels + 1)
    ordinary, depthwise = _convolution(channels, size, 1), _convolution(channels, size, channels)
    curves = (
        ("3x3, channels that are read", ordinary, [(int(w), channels) for w in widths]),
        ("3x3, channels that are written", ordinary, [(channels, int(w)) for w in widths]),
        ("3x3 depthwise", depthwise, [(1, int(w)) for w in widths]),
    )
    for axis, (title, piece, pairs) in zip(axes, curves, strict=True):
        times = time_pieces({piece: pairs}, Bench(17, 1 << 20, "cpu", 1))[0][piece]
        microseconds = np.array([1e3 * times[pair] for pair in pairs])
        fours = widths % 4 == 0
        axis.plot(widths[fours], microseconds[fours], "o", markersize=2.5, label="multiples of 4")
        axis.plot(widths[~fours], microseconds[~fours], ".", markersize=2.5, label="others")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("channels")
        axis.set_ylim(0)
    axes[0].set_ylabel("microseconds")
    axes[0].legend(fontsize=7, frameon=False)
    with rc_context({"svg.hashsalt": "stairs", "svg.fonttype": "none"}):
        figure.savefig(target, format="svg", metadata={"Date": None})


def _convolution(channels: int, size: int, group: int) -> Piece:
    """A 3x3 convolution of so many channels, as the latency model sees it in a network of two."""
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, channels, size, size]) for n in "xy"]
    weight = np.ones((channels, channels // group, 3, 3), np.float32)
    last = np.ones((channels, channels, 1, 1), np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "v"], ["a"], "first"),
        onnx.helper.make_node("Conv", ["a", "w"], ["b"], "second", group=group, pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Conv", ["b", "v"], ["y"], "last"),
    ]
    weights = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(last, "v")]
    graph = onnx.helper.make_graph(nodes, "stairs", values[:1], values[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return pieces(analyse(model).groups)[1]


def _model(path: Path) -> onnx.ModelProto:
    model = filled(path, path.resolve().parents[1])
    return onnx.load(model) if isinstance(model, Path) else model


def _lines(file: Path | None) -> list[str]:
    return [] if file is None or not file.is_file() else file.read_text(encoding="utf-8").splitlines()


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".onnx")


def _line(path: Path, text: str, into: Path | None = None) -> None:
    line = f"{_name(path)}: {text}"
    click.echo(line)
    if into is not None:
        with into.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


if __name__ == "__main__":
    milliseconds()
