"""How long a network takes at any widths, measured: every node on its own at a menu of widths, and the whole."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from ...passes.channels.apply_removal import apply_removal
from ...passes.graph.export import to_model
from ...passes.selection.latency_table import Band, LatencyTable, NodeTable, Side, fixed_side, scale
from ..analysis import Analysis
from ..device import Device
from ..measure.latency import Timing, compare_anew
from .blocked import block_size, reorder_ms
from .cache import cached, keep
from .optimised import Matched, Width, match
from .pieces import Bench, Piece, Widths, time_pieces
from .profile import named, profile

Array = np.ndarray
_SECONDS = 40.0  # with what is measured end to end after it: within a minute
_PROFILE_SECONDS, _WHOLE_SECONDS = 1.5, 3.0
_LEVELS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)  # of an axis: where pieces are timed
_BENCH_BYTES = (1 << 20, 64 << 20)
_NARROW = 4  # channels that a convolution reads at once where there are fewer than a block
_NEGLIGIBLE = 1e-3  # of the whole: nodes that take less are not timed at other widths
# What no width changes is about nothing, beside the sum; and how exact a share of the time is measured.
_REST, _NOISE = 0.05, 0.015
_CLOSED_AT, _SEED = 2, 17  # vectors of random widths beside the half
_FUSED = (0.8, 1.6)  # what a node takes in the network, of what it takes alone: further off, one of them was disturbed


@dataclass(frozen=True, slots=True)
class Place:
    """Where latency is measured: the device, the threads of one operator, and what is told of the way (0..1)."""

    device: Device = "auto"
    threads: int | None = 1
    progress: Callable[[float], None] = lambda share: None


def measure_table(analysis: Analysis, place: Place, *, seconds: float = _SECONDS) -> LatencyTable:
    """The table of a network, whose sum meets what it takes, whole and with half of its channels; as `timed_nodes`."""
    return closed(timed_nodes(analysis, place, seconds=seconds), analysis, place)


def timed_nodes(analysis: Analysis, place: Place, *, seconds: float = _SECONDS) -> LatencyTable:
    """The table of a network as the sum of its nodes.

    seconds: of wall-clock time, at most; what is not reached is taken to be proportional.
    """
    until = time.perf_counter() + seconds
    model = named(analysis.graph.source)
    times = profile(model, analysis.feeds, seconds=_PROFILE_SECONDS, device=place.device, threads=place.threads)
    matched = match(analysis.groups, model, times)
    block = block_size(place.device)
    timed = _timed(analysis, matched, block, place, until)
    reorder = reorder_ms(place.device) if block > 1 else 0.0
    builder = _Builder(len(analysis.cost.units), block, reorder, timed)
    nodes = tuple(builder.node(one) for one in matched)
    return LatencyTable(nodes, analysis.cost.units, block=block)


def measured(
    analysis: Analysis, vectors: Sequence[Array], place: Place, seconds: float = _WHOLE_SECONDS
) -> list[Timing]:
    """The network whole, and at each of these widths, in turns, in three sessions each."""
    models = [analysis.graph.source, *(at_widths(analysis, kept) for kept in vectors)]
    return compare_anew(models, analysis.feeds, seconds=seconds, device=place.device, threads=place.threads)


def at_widths(analysis: Analysis, kept: Array) -> onnx.ModelProto:
    """The network with so many units of each group, whichever: it takes the same time."""
    groups = analysis.groups
    gone = {g.name: range(int(n), g.units) for g, n in zip(groups.groups, kept, strict=True) if g.pinned is None}
    return to_model(apply_removal(groups.labelled, groups.removed_labels(gone)))


def closed(table: LatencyTable, analysis: Analysis, place: Place) -> LatencyTable:
    """The table whose sum meets what the network takes: whole, and with half of its channels."""
    half = _half(analysis)
    others = random_widths(analysis, table, _CLOSED_AT, _SEED)
    vectors = [] if (half == table.units).all() else [half, *others]
    before, *after = (timing.compared for timing in measured(analysis, vectors, place))
    whole, *narrow = (table.milliseconds(kept) for kept in (table.units, *vectors))
    told = zip(narrow, after, strict=True)
    rest = _rest(whole, np.array([(ms / whole, found / before) for ms, found in told])) if after and whole > 0 else 0.0
    return replace(table, rest=rest, factor=before / max(rest + whole, 1e-9))


def _rest(whole: float, shares: Array) -> float:
    """Milliseconds that no width changes, by the shares of the time that narrow widths take; where these tell much.

    shares: (n, 2), predicted and measured. (rest + predicted * whole) / (rest + whole) = measured, by least squares
    over all; drawn to 0 as far as the noise of what was measured makes it uncertain.
    """
    predicted, found = shares.T
    room = np.maximum(1 - found, _NOISE)  # rest * (1 - measured) = (measured - predicted) * whole
    told = float(room @ (found - predicted) / (room @ room)) * whole
    doubt = (_NOISE / _REST) ** 2 / float(room @ room)
    return float(np.clip(told / (1 + doubt), -3 * _REST * whole, whole))


def random_widths(analysis: Analysis, table: LatencyTable, vectors: int, seed: int = 0) -> list[Array]:
    """Vectors of kept units, (groups,) int64; none where every group is pinned."""
    rng = np.random.default_rng(seed)
    free = np.flatnonzero(analysis.cost.free).tolist()
    drawn = []
    for _ in range(vectors if free else 0):
        kept = table.units.copy()
        for group in free:
            kept[group] = rng.choice(table.steps(group))
        drawn.append(kept)
    return drawn


def _half(analysis: Analysis) -> Array:
    cost = analysis.cost
    half = np.maximum(cost.units // 32 * 16, np.minimum(16, cost.units))
    return np.where(cost.free, half, cost.units)


def _timed(
    analysis: Analysis, matched: Sequence[Matched], block: int, place: Place, until: float
) -> dict[Piece, dict[Widths, float]]:
    """Of every piece that matters its milliseconds at the menu of its widths."""
    total = sum(one.ms for one in matched)
    share: dict[Piece, float] = defaultdict(float)
    grids: dict[Piece, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))  # of all nodes that are alike
    for one in matched:
        if one.piece is not None:
            share[one.piece] += one.ms / total
            for grid, full, width in zip(grids[one.piece], one.piece.whole, (one.reads, one.writes), strict=True):
                grid.update(_levels(full, block, width, one.piece.narrowing))
            if one.piece.narrowing == 1:
                grids[one.piece][0].update(_narrow(one.piece.whole[0], block, one.reads))
    chosen = {p: sorted(itertools.product(*sides)) for p, sides in grids.items() if share[p] >= _NEGLIGIBLE}
    size = int(np.clip(analysis.cost.weight_bytes(analysis.cost.units), *_BENCH_BYTES))
    bench = Bench(analysis.graph.opset, size, place.device, place.threads)
    known = cached(chosen, bench)
    missing = {piece: pairs for piece, pairs in chosen.items() if piece not in known}
    new, settled = time_pieces(missing, bench, progress=place.progress, until=until)
    return known | keep(new, bench, settled)


def _levels(full: int, block: int, width: Width | None, groups: int = 1) -> list[int]:
    """Widths of an axis at which a piece is timed, ascending: the ends of stairs, and the whole.

    groups: of a convolution whose groups become narrower, all alike. Only groups of whole blocks stay in the blocked
    layout: these widths are among them, and so is the widest that is none.
    """
    if width is None:
        return [full]
    step = block if groups == 1 else groups
    stairs = -(-full // step)
    found = {min(full, max(1, round(level * stairs)) * step) for level in _LEVELS}
    if groups > 1:
        found |= {*range(groups * block, full, groups * block), max(full - groups, groups)}
    return sorted(found)


def _narrow(full: int, block: int, width: Width | None) -> list[int]:
    """Fewer channels than a block, which a convolution reads in the plain layout; for axes that may come so low."""
    return [] if width is None or full > _NARROW * block else list(range(_NARROW, min(block, full), _NARROW))


@dataclass(frozen=True, slots=True)
class _Builder:
    """Tables of nodes from what was timed.

    reorder: milliseconds to bring an element into the plain layout
    """

    groups: int
    block: int
    reorder: float
    timed: Mapping[Piece, Mapping[Widths, float]]

    def node(self, one: Matched) -> NodeTable:
        known = None if one.piece is None else self.timed.get(one.piece)
        if one.piece is None or not known or not known.get(one.piece.whole):
            return self._proportional(one)
        sides = enumerate((one.reads, one.writes))  # nodes that are alike may be moved on different sides
        reads, writes = (
            [one.piece.whole[side]] if width is None else sorted({pair[side] for pair in known})
            for side, width in sides
        )
        times = np.array([[known[r, w] for w in writes] for r in reads])
        if one.piece.narrowing > 1:
            return self._grouped(one, (reads, writes), times)
        for axis in (0, 1):  # what is narrower takes no longer: a piece that was disturbed is not believed
            times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis), axis)
        ms = np.zeros((len(reads) + 1, len(writes) + 1))
        ms[1:, 1:] = times * np.clip(one.ms / times[-1, -1], *_FUSED)
        if one.reads is not None:
            plain = np.where(np.array(reads) < self.block, reads, 0)
            ms[1:, 1:] += (plain * one.piece.positions * self.reorder)[:, None]
        return NodeTable(one.name, self._stairs(one.reads, reads), self._stairs(one.writes, writes), ms, one.op)

    def _grouped(self, one: Matched, grids: tuple[Sequence[int], Sequence[int]], times: Array) -> NodeTable:
        """A convolution whose groups become narrower: in the blocked layout where both widths are whole blocks a group.

        Where it falls out of it, data and result are brought from one layout to the other.
        """
        assert one.piece is not None, "it was timed"
        whole = self.block * one.piece.narrowing
        inside = [np.array(grid) % whole == 0 for grid in grids]
        moved = (np.array(grids[0])[:, None] + np.array(grids[1])) * one.piece.positions * self.reorder
        falls = ~np.logical_and.outer(*inside) & (inside[0][-1] and inside[1][-1])
        times = times * np.clip(one.ms / times[-1, -1], *_FUSED) + falls * moved
        order = [np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)]) for mask in inside]
        ms = np.zeros((len(grids[0]) + 1, len(grids[1]) + 1))
        ms[1:, 1:] = times[np.ix_(*order)]
        widths = (one.reads, one.writes)
        sides = [self._layouts(w, np.array(grid), whole) for w, grid in zip(widths, grids, strict=True)]
        return NodeTable(one.name, sides[0], sides[1], ms, one.op)

    def _layouts(self, width: Width | None, grid: Array, whole: int) -> Side:
        """Multiples of `whole` behave alike, and all that is between."""
        if width is None:
            return fixed_side(self.groups, int(grid[-1]))
        blocked, plain = grid[grid % whole == 0].tolist(), grid[grid % whole != 0].tolist()
        bands = [Band(tuple(blocked), multiple=whole), Band(tuple(plain))] if blocked and plain else [Band(tuple(grid))]
        return Side(width.base, width.row, scale(width.full, bands))

    def _stairs(self, width: Width | None, grid: Sequence[int]) -> Side:
        """Whole blocks; 4 channels where there are fewer than a block."""
        if width is None:
            return fixed_side(self.groups, grid[-1])
        narrow = tuple(n for n in grid if n < min(self.block, grid[-1]))
        bands = [Band(narrow, _NARROW, below=self.block)] if narrow else []
        return Side(width.base, width.row, scale(width.full, [*bands, Band(tuple(grid[len(narrow) :]), self.block)]))

    def _proportional(self, one: Matched) -> NodeTable:
        """Time in proportion to what is read and what is written, in the blocked layout by whole blocks."""
        step = self.block if one.blocked else 1
        grids = [[1] if w is None else sorted({min(step, w.full), w.full}) for w in (one.reads, one.writes)]
        sides = [self._line(w, grid) for w, grid in zip((one.reads, one.writes), grids, strict=True)]
        shares = [np.array([0, *grid]) / grid[-1] for grid in grids]
        return NodeTable(one.name, sides[0], sides[1], one.ms * np.outer(*shares), one.op)

    def _line(self, width: Width | None, grid: Sequence[int]) -> Side:
        if width is None:
            return fixed_side(self.groups)
        return Side(width.base, width.row, scale(width.full, [Band(tuple(grid), grid[0] if len(grid) > 1 else 1)]))
