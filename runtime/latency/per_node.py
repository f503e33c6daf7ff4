"""Where the time of a network goes, and how far what is predicted at other widths is from what is measured there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...passes.selection.latency_table import LatencyTable
from ..analysis import Analysis
from .model import Place, measure_table, measured, random_widths

Array = np.ndarray
_TOGETHER, _SECONDS = 3, 2.0  # networks that are measured in turns with the whole one, and for how long


@dataclass(frozen=True, slots=True)
class NodeShare:
    """A node of the graph that ONNX Runtime makes of the model.

    name: of the node or of the tensor that it writes
    op: its operator; "nchwc." stands before those of the blocked layout
    reads, writes: channels, where they can become fewer
    ms: its part of one run
    """

    name: str
    op: str
    reads: int | None
    writes: int | None
    ms: float


@dataclass(frozen=True, slots=True)
class PerNode:
    """The milliseconds of one run by node.

    nodes: those that take most first
    rest: what belongs to no node
    whole: of the network, as it was measured: the sum of all
    checks: at random widths (predicted, measured), shares of the whole network's time
    """

    nodes: tuple[NodeShare, ...]
    rest: float
    whole: float
    checks: tuple[tuple[float, float], ...]

    @property
    def errors(self) -> list[float]:
        """Of the predictions, relative to what was measured."""
        return [predicted / found - 1 for predicted, found in self.checks]


def per_node(analysis: Analysis, place: Place, *, vectors: int = 6, seed: int = 0) -> PerNode:
    """What each node takes, and the table's predictions checked at so many vectors of random widths.

    Widths are drawn among those at which a stair ends (`LatencyTable.steps`), each group its own.
    """
    table = measure_table(analysis, place)
    whole = table.milliseconds(table.units)
    drawn = random_widths(analysis, table, vectors, seed)
    checks = tuple(_checked(analysis, table, drawn, place))
    return PerNode(tuple(_shares(table)), table.factor * table.rest, whole, checks)


def _checked(
    analysis: Analysis, table: LatencyTable, drawn: list[Array], place: Place
) -> Iterator[tuple[float, float]]:
    whole = table.milliseconds(table.units)
    for start in range(0, len(drawn), _TOGETHER):
        some = drawn[start : start + _TOGETHER]
        before, *after = measured(analysis, some, place, _SECONDS)
        for kept, timing in zip(some, after, strict=True):
            yield table.milliseconds(kept) / whole, timing.compared / before.compared


def _shares(table: LatencyTable) -> list[NodeShare]:
    rows = [
        NodeShare(
            node.name,
            node.op,
            node.reads.scale.full if node.reads.row.any() else None,
            node.writes.scale.full if node.writes.row.any() else None,
            float(ms),
        )
        for node, ms in zip(table.nodes, table.by_node(table.units), strict=True)
    ]
    return sorted(rows, key=lambda row: -row.ms)
