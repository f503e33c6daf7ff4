"""What `onnx-prune bench` shows on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..runtime.figures import digits, shortened
from ..runtime.measure.latency import Timing, machine, ratio
from .show import terminal

if TYPE_CHECKING:
    from ..runtime.latency.per_node import PerNode

_MANY = 30  # nodes shown, those that take most


def print_latencies(models: list[str], timings: list[Timing]) -> None:
    """Wall and processor time of each, the spread of the runs, and the ratio to the first."""
    out, table = terminal(), _table("model", "latency", "processor time", "spread", "of the first")
    for model, t in zip(models, timings, strict=True):
        share = f"{ratio(timings[0], t):.1%}"
        table.add_row(Text(model), f"{digits(t.wall)} ms", f"{digits(t.cpu)} ms", f"{t.spread:.0%}", share)
    out.print(table)
    out.print(Text(f"measured on {machine()}", style="dim"))
    if any(t.busy for t in timings):
        out.print("the machine was busy: the last column compares processor time")


def print_nodes(found: PerNode, *, threads: int, batch: int) -> None:
    """The nodes that take most, what the others take, and how good the predictions are."""
    out, table = terminal(), _table("node", "operator", "reads", "writes", "time", "share")
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


def _table(*headings: str) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        left = number == 0 or heading == "operator"
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    return table


def _cells(ms: float, whole: float) -> tuple[str, str]:
    return f"{digits(ms)} ms", f"{ms / whole:.1%}"
