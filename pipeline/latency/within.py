"""A budget of milliseconds is met by measurement: model the network, cut, measure, correct, at most three times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
# aim. What is measured moves by 0.005 from one session to the next, and what the user reads is measured once more.
_OVER, _NEAR, _UNDER = 0.003, -0.002, 0.0135
_AIMS = (0.007, 0.008, 0.01)
_LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class MeasuredCut:
    """Widths, and the share of the time that they were measured to take."""

    kept: Array
    share: float


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
    rounds: list[MeasuredCut] = []
    slope = 1.0  # of what is measured to be saved, for what is predicted to be
    for number, aim in enumerate(_AIMS, 1):
        progress(f"measuring latency: round {number} of at most {len(_AIMS)}")
        kept = _widths(widths, table, 1 - (1 - max(asked - aim, _LEAST)) / slope)
        if any((kept == one.kept).all() for one in rounds):
            break
        share = ratio(*measured(analysis, [kept], place))
        rounds.append(MeasuredCut(kept, share))
        if asked - _UNDER <= share <= asked + _NEAR:
            break
        predicted = table.milliseconds(kept) / table.milliseconds(table.units)
        slope = max((1 - share) / max(1 - predicted, _LEAST), _LEAST)
    return _best(rounds, asked, budget, analysis.name, before.compared)


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


def _best(rounds: Sequence[MeasuredCut], asked: float, budget: Budget, name: str, before: float) -> Array:
    """The widest that holds the budget."""
    holds = [one for one in rounds if one.share <= asked + _OVER]
    if holds:
        return max(holds, key=lambda one: one.share).kept
    least = min(one.share for one in rounds)
    possible = f"{math.ceil(1000 * least) / 10:g}%" if budget.is_share else f"{least * before:.3g}ms"
    raise BudgetError(
        f"the latency cannot be met: {asked:.1%} of the original's was asked for, {least:.1%} was reached "
        f"({least * before:.3g} of {before:.3g} ms)",
        where=f"{name}, {len(rounds)} cuts measured",
        fix=f"ask for --latency {possible} or more; onnx-prune bench {name} --per-node shows where the time goes",
        asked=asked,
        possible=least,
    )
