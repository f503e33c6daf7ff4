"""`onnx-prune bench`: how long models take, and where the time of one goes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .endings import print_json
from .options import DEVICE, JSON, SIZES, free_sizes
from .progress import progress_shown

if TYPE_CHECKING:
    from rich.console import Console

    from ..runtime.analysis import Analysis
    from ..runtime.latency.per_node import PerNode
    from ..runtime.measure.latency import Timing


_MANY = 30  # nodes shown, those that take most


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    help="How long to measure, all models together.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of one operator.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples in one run.")
@click.option(
    "--per-node",
    is_flag=True,
    help="Show where the time of one model goes, and how well its latency at other widths is predicted.",
)
@DEVICE
@SIZES
@JSON
def bench(models: tuple[Path, ...], as_json: bool, per_node: bool, **options: Any) -> None:  # noqa: ANN401
    """Measure the latency of MODELS in ONNX Runtime, on the first one's random input, in turns."""
    if per_node:
        _bench_nodes(models, options, as_json)
    else:
        _bench_models(models, options, as_json)


def _bench_models(models: tuple[Path, ...], options: dict[str, Any], as_json: bool) -> None:
    from ..runtime.data.random_feeds import runnable_feeds
    from ..runtime.measure.latency import compare, machine

    device, threads = options["device"], options["threads"]
    with progress_shown() as progress:
        progress("measuring latency")
        sizes = free_sizes(options["sizes"])
        feeds = runnable_feeds(models[0], batch=options["batch"], sizes=sizes, device=device)
        timings = compare(models, feeds, seconds=options["seconds"], device=device, threads=threads)
    if as_json:
        rows = [{"model": str(m), "latency": t.wall, **asdict(t)} for m, t in zip(models, timings, strict=True)]
        print_json({"machine": machine(), "threads": threads, "models": rows})
    else:
        _print_latencies([str(model) for model in models], timings)


def _bench_nodes(models: tuple[Path, ...], options: dict[str, Any], as_json: bool) -> None:
    from ..passes.errors import UsageError
    from ..pipeline.latency.within import timing_layers
    from ..runtime.latency.per_node import per_node
    from ..runtime.measure.latency import machine

    if len(models) != 1:
        raise UsageError("--per-node looks at one model", where=" ".join(map(str, models)), fix="give one")
    with progress_shown() as progress:
        progress("reading the model")
        place = _place(options, timing_layers(progress))
        analysis = _analysis(models[0], options)
        found = per_node(analysis, place)
    if as_json:
        context = {"model": str(models[0]), "machine": machine(), "threads": options["threads"]}
        print_json({**context, "batch": options["batch"], **asdict(found)})
    else:
        _print_nodes(found, threads=options["threads"], batch=options["batch"])


def _analysis(model: Path, options: dict[str, Any]) -> Analysis:
    from ..runtime.analysis import analyse
    from ..runtime.latency.batched import of_batch

    read = analyse(model, device=options["device"], sizes=free_sizes(options["sizes"]))
    return of_batch(read, options["batch"])


def _place(options: dict[str, Any], progress: Any) -> Any:  # noqa: ANN401 - imported late
    from ..runtime.latency.model import Place

    return Place(options["device"], options["threads"], progress)


def _print_latencies(models: list[str], timings: list[Timing]) -> None:
    """Wall and processor time of each, the spread of the runs, and the ratio to the first."""
    from rich.text import Text

    from ..runtime.figures import digits
    from ..runtime.measure.latency import machine, ratio
    from .show import headed, terminal

    out, table = terminal(), headed("model", "latency", "processor time", "spread", "of the first")
    for model, t in zip(models, timings, strict=True):
        share = f"{ratio(timings[0], t):.1%}"
        table.add_row(Text(model), f"{digits(t.wall)} ms", f"{digits(t.cpu)} ms", f"{t.spread:.0%}", share)
    out.print(table)
    out.print(Text(f"measured on {machine()}", style="dim"))
    if any(t.busy for t in timings):
        out.print("the machine was busy: the last column compares processor time")


def _print_nodes(found: PerNode, *, threads: int, batch: int) -> None:
    """The nodes that take most, what the others take, and how good the predictions are."""
    from rich.text import Text

    from ..runtime.figures import shortened
    from ..runtime.measure.latency import machine
    from .show import headed, terminal

    out, table = terminal(), headed("node", "operator", "reads", "writes", "time", "share")
    for node in found.nodes[:_MANY]:
        widths = ["" if width is None else str(width) for width in (node.reads, node.writes)]
        table.add_row(
            Text(shortened(node.name.removesuffix("_nchwc"))), node.op, *widths, *_cells(node.ms, found.whole)
        )
    others = found.nodes[_MANY:]
    if others:
        table.add_row(f"... {len(others)} more nodes", "", "", "", *_cells(sum(n.ms for n in others), found.whole))
    table.add_row("difference to the whole", "", "", "", *_cells(found.rest, found.whole))
    table.add_row("the whole network", "", "", "", *_cells(found.whole, found.whole))
    out.print(table)
    _print_predictions(out, found)
    out.print(Text(f"{threads} thread{'s' * (threads > 1)}, batch {batch}, measured on {machine()}", style="dim"))


def _print_predictions(out: Console, found: PerNode) -> None:
    from rich.text import Text

    if not found.errors:
        out.print("no channels can go: there is nothing to predict")
        return
    errors = [abs(error) for error in found.errors]
    pairs = ", ".join(f"{predicted:.1%} for {measured:.1%}" for predicted, measured in found.checks)
    out.print(
        f"latency at {len(errors)} random widths is predicted {sum(errors) / len(errors):.1%} off on average, "
        f"{max(errors):.1%} at most"
    )
    out.print(Text(f"predicted for measured, of the whole network's: {pairs}", style="dim"))


def _cells(ms: float, whole: float) -> tuple[str, str]:
    from ..runtime.figures import digits

    return f"{digits(ms)} ms", f"{ms / whole:.1%}"
