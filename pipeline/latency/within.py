"""A budget of milliseconds is met by measurement: model the network, cut, measure, correct, at most three times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ...passes.errors import BudgetError
from ...passes.selection.budget import Budget
from ...passes.selection.latency_table import LatencyTable
from ...runtime.analysis import Analysis
from ...runtime.latency.model import Place, measure_table, measured
from ...runtime.measure.latency import ratio
from ...runtime.progress import Stage

Array = np.ndarray
Widths = Callable[[Budget, LatencyTable], Array]  # a share of the table's milliseconds -> widths; raises BudgetError
# Shares of the original's time: how far from what is asked for a result may be measured, and how far below the rounds
# aim. What is measured moves by up to 0.01 from one session to the next, what the user reads is measured once more, and
# what was the best of several by its measurement is a little worse when it is measured again.
_OVER, _NEAR, _UNDER = 0.003, -0.005, 0.0135
_AIMS = (0.01, 0.011, 0.012)
# Of the table's time, beside what a later round aims at: some nodes are predicted too slow and some too quick, so that
# widths that differ little may differ by 0.02. They are measured in turns, where that many networks fit into memory.
_BESIDE = (-0.012, 0.0, 0.012)
_BESIDE_BYTES = 400e6
_LEAST = 1e-3
# What is measured so near to the budget that noise may decide is measured again until two measurements agree.
_DOUBTED, _AGREE, _MOST = 0.03, 0.005, 4
_MEANT = 0.02  # below the budget, at most
_SAME = 0.95  # of what a node took: it became no quicker


@dataclass(frozen=True, slots=True)
class MeasuredCut:
    """Widths, and the share of the time that they were measured to take."""

    kept: Array
    share: float

    def rank(self, asked: float) -> tuple[bool, float]:
        """The greatest is best: near below what was asked for, else as near as any."""
        return asked - _MEANT <= self.share <= asked, -abs(self.share - asked + _AIMS[0])


def within_latency(analysis: Analysis, budget: Budget, widths: Widths, place: Place, progress: Stage) -> Array:
    """Units that each group keeps, measured in turns with the original to hold the budget from near below.

    Raises BudgetError with `asked` and `possible`, shares of the original's time, where what was measured holds it not.
    """
    table = measure_table(analysis, replace(place, progress=timing_layers(progress)))
    progress("measuring latency")
    (before,) = measured(analysis, [], place)
    asked = budget.limit(before.compared) / before.compared
    if asked >= 1:
        return table.units
    tried = _tried(analysis, asked, partial(_widths, widths, table), table, place, progress)
    holds = [one for one in tried if one.share <= asked + _OVER]
    if holds:
        return max(holds, key=lambda one: one.rank(asked)).kept
    least = min(tried, key=lambda one: one.share)
    where = f"{analysis.name}, {len(tried)} cut{'s' * (len(tried) > 1)} measured; {_stays(table, least.kept)}"
    raise _not_met(least.share, asked, before.compared, budget, analysis, where)


def _tried(
    analysis: Analysis,
    asked: float,
    widths: Callable[[float], Array],
    table: LatencyTable,
    place: Place,
    progress: Stage,
) -> list[MeasuredCut]:
    """Cuts that come nearer to this share of the original's time, round by round.

    widths: for a share of the table's time.
    """
    tried: list[MeasuredCut] = []
    slope = 1.0  # of what is measured to be saved, for what is predicted to be
    beside = _BESIDE if analysis.cost.weight_bytes(table.units) <= _BESIDE_BYTES else (0.0,)
    for number, aim in enumerate(_AIMS, 1):
        progress(f"measuring latency: round {number} of at most {len(_AIMS)}")
        aimed = 1 - (1 - max(asked - aim, _LEAST)) / slope
        cuts = _unlike([widths(aimed + by) for by in (beside if tried else (0.0,))], tried)
        if not cuts:
            break
        tried += map(MeasuredCut, cuts, _shares(analysis, cuts, asked, place))
        nearest = min(tried, key=lambda one: abs(one.share - asked + aim))
        if asked - _UNDER <= nearest.share <= asked + _NEAR:
            break
        predicted = table.milliseconds(nearest.kept) / table.milliseconds(table.units)
        slope = max((1 - nearest.share) / max(1 - predicted, _LEAST), _LEAST)
    return tried


def _unlike(cuts: Sequence[Array], tried: Sequence[MeasuredCut]) -> list[Array]:
    """Those that differ from each other, and from what was measured."""
    known = {one.kept.tobytes() for one in tried}
    return list({kept.tobytes(): kept for kept in cuts if kept.tobytes() not in known}.values())


def _shares(analysis: Analysis, cuts: Sequence[Array], asked: float, place: Place) -> list[float]:
    """Of the original's time: of one measurement where all are far from what is asked for, else the median of some."""
    found: list[list[float]] = []
    while len(found) < _MOST:
        before, *after = measured(analysis, cuts, place)
        found.append([ratio(before, timing) for timing in after])
        near = np.abs(np.median(found, axis=0) - asked) <= _DOUBTED
        agree = len(found) > 1 and np.diff(np.sort(found, axis=0), axis=0).min(axis=0) <= _AGREE
        if (agree | ~near).all():
            break
    return np.median(found, axis=0).tolist()


def timing_layers(progress: Stage) -> Callable[[float], None]:
    """Tells the stage how far the timing of layers is."""
    progress("timing layers")
    return lambda share: progress(f"timing layers: {round(100 * share)} of 100 %")


def _widths(widths: Widths, table: LatencyTable, share: float) -> Array:
    """Widths for a share of the table's time; the narrowest ones where none take so little."""
    try:
        return widths(Budget(latency=min(max(share, _LEAST), 1.0)), table)
    except BudgetError as error:
        possible = float(str(error.values["possible"]))
        return widths(Budget(latency=min(possible * (1 + _LEAST), 1.0)), table)


def _stays(table: LatencyTable, kept: Array) -> str:
    """In words: what takes as long at these widths as in the whole network."""
    before, after = table.by_node(table.units), table.by_node(kept)
    same = after >= _SAME * before
    return (
        f"{same.sum()} of {len(same)} nodes take as long as before, {after[same].sum() / before.sum():.0%} of the time"
    )


def _not_met(least: float, asked: float, before: float, budget: Budget, analysis: Analysis, where: str) -> BudgetError:
    """least, asked: shares of the original's time; before: its milliseconds."""
    possible = f"{math.ceil(1000 * least) / 10:g}%" if budget.is_share else f"{least * before:.3g}ms"
    larger = ", or say what sizes it will run at (--size-of)" if analysis.free else ""
    return BudgetError(
        f"the latency cannot be met: {asked:.1%} of the original's was asked for, {least:.1%} was reached "
        f"({least * before:.3g} of {before:.3g} ms)",
        where=where,
        fix=f"ask for --latency {possible} or more{larger}; "
        f"onnx-prune bench {analysis.name} --per-node shows where the time goes",
        asked=asked,
        possible=least,
    )
