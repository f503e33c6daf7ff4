"""What a network takes at any widths, in milliseconds, from what its nodes were measured to take.

    milliseconds(kept) = factor * (rest + sum_n ms_n(width read, width written)),    widths = base + row @ kept

Nothing is run here: see `runtime.latency.model`, which measures the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray

_NARROW = 4  # channels that a convolution reads at once where there are fewer than a block
_GAIN = 0.25  # of the mean cost of a unit: a width that saves less beside the next larger one is not a step


@dataclass(frozen=True, slots=True)
class Band:
    """Widths that behave alike: multiples of `multiple` that are smaller than `below` (0: of any size).

    grid: the widths that were measured, ascending
    step: a width costs what the next multiple of it costs (1: no staircase)

    What is between two measured widths is interpolated.
    """

    grid: tuple[int, ...]
    step: int = 1
    multiple: int = 1
    below: int = 0

    def holds(self, widths: Array) -> Array:
        """One bool a width."""
        return (widths % self.multiple == 0) & ((widths < self.below) if self.below else True)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where each width w of 0..full lies among those that were measured: (1 - share) * ms[low] + share * ms[low + 1].

    grid: (n,) int64, the measured widths, band after band, after a 0
    low: (full + 1,) int64, at most n - 2
    share: (full + 1,) float64 in 0..1
    """

    grid: Array
    low: Array
    share: Array

    @property
    def full(self) -> int:
        return len(self.low) - 1


def scale(full: int, bands: Sequence[Band]) -> Scale:
    """The scale of an axis of up to `full` entries; the first band that holds a width decides, the last holds all.

    Widths outside a band's grid cost what its first or last one costs.
    """
    widths, grid = np.arange(full + 1), [np.zeros(1, np.int64)]
    low, share = np.zeros(full + 1, np.int64), np.zeros(full + 1)
    left, start = widths > 0, 1
    for band in bands:
        points = np.array(band.grid, np.int64)
        assert len(points), "a band has at least one measured width"
        assert (np.diff(points) > 0).all(), "measured widths ascend"
        here = left & band.holds(widths)
        rounded = -(-widths[here] // band.step) * band.step
        at = np.interp(rounded, points, np.arange(len(points))) + start
        low[here] = np.minimum(np.floor(at), start + len(points) - 2).astype(np.int64)
        share[here] = at - low[here]
        left, start = left & ~here, start + len(points)
        grid.append(points)
    assert not left.any(), "a width is in no band"
    return Scale(np.concatenate(grid), low, share)


@dataclass(frozen=True, slots=True)
class Side:
    """The width of one side of a node, base + row @ kept, and how it lies among the measured ones.

    row: (groups,) float64, slices of a kept unit on this axis.
    """

    base: int
    row: Array
    scale: Scale


@dataclass(frozen=True, slots=True)
class NodeTable:
    """What one node takes: ms (len(reads.scale.grid), len(writes.scale.grid)), float64, milliseconds of one run.

    Where a side has width 0 the node is gone and takes 0 ms: the first row and the first column are 0. A node whose
    two widths are one (depthwise, pooling, elementwise) has a second side of constant width 1, see `fixed_side`.
    op: what it is, for whoever reads the table.
    """

    name: str
    reads: Side
    writes: Side
    ms: Array
    op: str = ""

    def __post_init__(self) -> None:
        assert self.ms.shape == (len(self.reads.scale.grid), len(self.writes.scale.grid))
        assert not self.ms[0].any(), "what reads nothing takes no time"
        assert not self.ms[:, 0].any(), "what writes nothing takes no time"


def fixed_side(groups: int, width: int = 1) -> Side:
    """A side whose width no group changes."""
    return Side(width, np.zeros(groups), scale(width, [Band((width,))]))


def linear_node(name: str, side: Side, ms: float) -> NodeTable:
    """A node that takes `ms` at the full width of `side`, and time in proportion at any other: elementwise work."""
    whole = Side(side.base, side.row, _proportional(side.scale.full))
    return NodeTable(name, whole, fixed_side(len(side.row)), np.array([[0, 0], [0, ms]]))


def _proportional(full: int) -> Scale:
    return Scale(np.array([0, full]), np.zeros(full + 1, np.int64), np.arange(full + 1) / max(full, 1))


@dataclass(frozen=True)
class LatencyTable:
    """milliseconds(kept) = factor * (rest + sum of the nodes); kept: (groups,) int64, as `CostModel` reads it.

    rest: ms that no width changes
    factor: closes the sum to what the whole network was measured to take
    units: `kept` of the whole network
    block: channels that are computed together

    dataclasses.replace(table, factor=...) corrects it after a measurement.
    """

    nodes: tuple[NodeTable, ...]
    units: Array
    rest: float = 0.0
    factor: float = 1.0
    block: int = 1

    def milliseconds(self, kept: Array) -> float:
        """Of one run at these widths."""
        return float(self.each(kept[None])[0])

    def each(self, kept: Array) -> Array:
        """Milliseconds at many vectors of widths at once: (m, groups) -> (m,)."""
        return self.factor * (self.rest + self._stack.times(kept).sum(axis=1))

    def by_node(self, kept: Array) -> Array:
        """What each of `nodes` takes, (nodes,): with factor * rest they sum up to `milliseconds`."""
        return self.factor * self._stack.times(kept[None])[0]

    def moved(self, kept: Array, group: int, widths: Array) -> Array:
        """Milliseconds at `kept` where one group alone keeps widths[i] instead, (m,) -> (m,).

        Exact: the nodes that do not read or write the group are taken over, the others are looked up anew.
        """
        part = self._parts[group]
        before = part.times(kept[None]).sum()
        vectors = np.repeat(kept[None], len(widths), axis=0)
        vectors[:, group] = widths
        return self.milliseconds(kept) + self.factor * (part.times(vectors).sum(axis=1) - before)

    def change(self, kept: Array, group: int, widths: Array) -> Array:
        """`moved` less milliseconds(kept), for the price of the nodes that the group touches alone."""
        part = self._parts[group]
        vectors = np.repeat(kept[None], len(widths) + 1, axis=0)
        vectors[1:, group] = widths
        times = part.times(vectors).sum(axis=1)
        return self.factor * (times[1:] - times[0])

    def steps(self, group: int) -> Array:
        """Widths of a group, ascending, at which a stair ends: every wider one takes longer, all others being whole.

        On every axis they are whole blocks, or a multiple of 4 less than one. The last is the whole width: a group
        that no node depends on has that one alone.
        """
        units = int(self.units[group])
        widths = np.arange(1, units + 1)
        change = self.change(self.units, group, widths)
        if units == 1 or not len(self._parts[group].base[0]):
            return widths[-1:]
        wider = np.minimum.accumulate(change[::-1])[::-1]  # the least of all that are at least so wide
        gain = _GAIN * max(float(change[-1] - change[0]), 0.0) / units
        ends = np.append(change[:-1] < wider[1:] - gain, True)
        lengths = widths[:, None] * np.unique(self._parts[group].rows[..., group]).astype(np.int64)
        blocks = (lengths % self.block == 0) | ((lengths < self.block) & (lengths % _NARROW == 0))
        return widths[(ends & blocks.all(axis=1)) | (widths == units)]

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """Of each group those whose prices change with its width: that share a node with it, and itself."""
        rows = np.array([(n.reads.row != 0) | (n.writes.row != 0) for n in self.nodes]).reshape(-1, len(self.units))
        share = rows.T.astype(np.int64) @ rows + np.eye(len(self.units), dtype=np.int64)
        return [np.flatnonzero(row).tolist() for row in share]

    @cached_property
    def _stack(self) -> _Stack:
        return _stack(self.nodes, len(self.units))

    @cached_property
    def _parts(self) -> list[_Stack]:
        """Of each group the nodes that read or write it."""
        touched = [(n, n.reads.row != 0, n.writes.row != 0) for n in self.nodes]
        count = len(self.units)
        return [_stack([n for n, a, b in touched if a[group] or b[group]], count) for group in range(count)]


@dataclass(frozen=True, slots=True)
class _Stack:
    """The tables of n nodes, one after another, so that all are looked up at once.

    base (2, n) and rows (2, n, groups): widths of the two sides. first (2, n): where a side's scale begins in low and
    share; offset, stride (n,): where a node's table begins in ms, and the length of its rows.
    """

    base: Array
    rows: Array
    first: Array
    low: Array
    share: Array
    offset: Array
    stride: Array
    ms: Array

    def times(self, kept: Array) -> Array:
        """(m, groups) -> (m, n): bilinear between the four measured widths around."""
        lengths = np.rint(self.base[:, None] + kept.astype(np.float64) @ self.rows.transpose(0, 2, 1)).astype(np.int64)
        at = self.first[:, None] + lengths
        low, (x, y) = self.low[at], self.share[at]
        corner = self.offset + low[0] * self.stride + low[1]
        below = corner + self.stride
        upper = self.ms[corner] * (1 - y) + self.ms[corner + 1] * y
        lower = self.ms[below] * (1 - y) + self.ms[below + 1] * y
        return upper * (1 - x) + lower * x


def _stack(nodes: Sequence[NodeTable], groups: int) -> _Stack:
    sides = [[n.reads for n in nodes], [n.writes for n in nodes]]
    scales = [side.scale for each in sides for side in each]
    starts = np.cumsum([0, *(len(s.low) for s in scales)])[:-1].reshape(2, len(nodes))
    sizes = [n.ms.size for n in nodes]
    empty = np.zeros(0)
    return _Stack(
        base=np.array([[side.base for side in each] for each in sides], np.float64),
        rows=np.array([[side.row for side in each] for each in sides], np.float64).reshape(2, len(nodes), groups),
        first=starts,
        low=np.concatenate([empty.astype(np.int64), *(s.low for s in scales)]),
        share=np.concatenate([empty, *(s.share for s in scales)]),
        offset=np.cumsum([0, *sizes])[:-1].astype(np.int64),
        stride=np.array([n.ms.shape[1] for n in nodes], np.int64),
        ms=np.concatenate([empty, *(n.ms.ravel() for n in nodes)]),
    )
