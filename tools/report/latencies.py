"""What `onnx-prune bench` shows: latencies of models, and of the nodes of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ...runtime.figures import digits, shortened
from ...runtime.latency.per_node import PerNode
from ...runtime.measure.latency import Timing, machine, ratio

_MANY = 30  # nodes shown, those that take most


Shapes = Mapping[str, Sequence[int]]  # of what the models read, by the inputs' names


def of_models(
    models: Sequence[str], timings: Sequence[Timing], *, threads: int, shapes: Shapes
) -> Iterator[RenderableType]:
    """Wall and processor time of each, the spread of the runs, and the ratio to the first."""
    table = _headed("model", "latency", "processor time", "spread", "of the first")
    for model, t in zip(models, timings, strict=True):
        share = f"{ratio(timings[0], t):.1%}"
        table.add_row(Text(model), f"{digits(t.wall)} ms", f"{digits(t.cpu)} ms", f"{t.spread:.0%}", share)
    yield table
    yield _where(threads, shapes)
    if any(t.busy for t in timings):
        yield "the machine was busy: the last column compares processor time"


def of_nodes(found: PerNode, *, threads: int, shapes: Shapes) -> Iterator[RenderableType]:
    """The nodes that take most, what the others take, and how good the predictions are."""
    table = _headed("node", "operator", "reads", "writes", "time", "share")
    for node in found.nodes[:_MANY]:
        widths = ["" if width is None else str(width) for width in (node.reads, node.writes)]
        name = Text(shortened(node.name.removesuffix("_nchwc")))
        table.add_row(name, node.op, *widths, *_cells(node.ms, found.whole))
    others = found.nodes[_MANY:]
    if others:
        table.add_row(f"... {len(others)} more nodes", "", "", "", *_cells(sum(n.ms for n in others), found.whole))
    table.add_row("difference to the whole", "", "", "", *_cells(found.rest, found.whole))
    table.add_row("the whole network", "", "", "", *_cells(found.whole, found.whole))
    yield table
    yield from _predictions(found)
    yield _where(threads, shapes)


def _where(threads: int, shapes: Shapes) -> Text:
    read = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return Text(f"{threads} thread{'s' * (threads > 1)} of {machine()}, {read or 'no input'}", style="dim")


def _predictions(found: PerNode) -> Iterator[RenderableType]:
    if not found.errors:
        yield "no channels can go: there is nothing to predict"
        return
    errors = [abs(error) for error in found.errors]
    mean = sum(errors) / len(errors)
    yield f"latency at {len(errors)} random widths is predicted {mean:.1%} off on average, {max(errors):.1%} at most"
    pairs = ", ".join(f"{predicted:.1%} for {measured:.1%}" for predicted, measured in found.checks)
    yield Text(f"predicted for measured, of the whole network's: {pairs}", style="dim")


def _headed(*headings: str) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        left = number == 0 or heading == "operator"
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    return table


def _cells(ms: float, whole: float) -> tuple[str, str]:
    return f"{digits(ms)} ms", f"{ms / whole:.1%}"
