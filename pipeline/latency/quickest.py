"""Of several widths that meet a budget alike those that take least time, where nothing else speaks for one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

from ...passes.errors import BudgetError, ReadError
from ...passes.selection.frames import Align
from ...passes.selection.latency_table import LatencyTable
from ...passes.selection.milliseconds import fairest
from ...runtime.analysis import Analysis
from ...runtime.latency.blocked import block_size
from ...runtime.latency.model import Place, measured, timed_nodes
from ...runtime.measure.latency import ratio

Array = np.ndarray
Allocated = Callable[[Align, LatencyTable | None], Array]  # widths that meet the budget; raises BudgetError
_MOST_MACS = 30e9  # of one run: above, timing layers and candidates would take minutes
_MEASURED, _SECONDS = 3, 1.0  # candidates that are measured, those of the least predicted time; for all of them
_TIMING = 20.0  # seconds for layers, at most: nobody asked for milliseconds
_NOTICED = 0.98  # of the time: a later candidate has to be so much quicker, so that noise does not decide
_CERTAIN = 0.9  # of the time: who is predicted to take less is not slower than the original
_CLOSE = 1e-9
_ALIKE = 0.03  # of what the budget counts, in the original: who keeps less than the first by more has cut more


def quickest(analysis: Analysis, allocated: Allocated, spent: Callable[[Array], float], place: Place) -> Array:
    """`kept`, (groups,) int64: the widths that `--align auto` stands for, or others of the budget that run quicker.

    The others are whole blocks of the layout in which convolutions run here, two of them, and widths by time saved.
    The three that are predicted to be the quickest are measured in turns. spent: what the budget counts, of widths; who
    leaves much of it unused is no candidate. Who takes far more of one group than equal shares would, and than the
    first does, is one only where even widths are measured to bring no time. Raises BudgetError as `allocated` does.
    """
    first = allocated("auto", None)
    block = block_size(place.device)
    if block == 1 or analysis.cost.macs(analysis.cost.units) > _MOST_MACS:
        return first
    try:
        table = timed_nodes(analysis, place, seconds=_TIMING)
    except ReadError:  # what ONNX Runtime does not record
        return first
    candidates, uneven = _candidates(analysis, allocated, spent, table, first, block)
    predicted, whole = table.each(np.array(candidates)), table.milliseconds(analysis.cost.units)
    likely = sorted(np.argsort(predicted, kind="stable")[:_MEASURED].tolist())
    if likely == [0] and predicted[0] <= _CERTAIN * whole:
        return first
    tried = [candidates[i] for i in likely]
    shares = _shares(analysis, tried, place)
    if min(shares) > _NOTICED and uneven:
        rest = sorted(uneven, key=table.milliseconds)[:_MEASURED]
        tried, shares = tried + rest, shares + _shares(analysis, rest, place)
    best = 0
    for number, share in enumerate(shares):
        if share < _NOTICED * shares[best]:
            best = number
    return tried[best]


def _candidates(
    analysis: Analysis,
    allocated: Allocated,
    spent: Callable[[Array], float],
    table: LatencyTable,
    first: Array,
    block: int,
) -> tuple[list[Array], list[Array]]:
    """The first and what spends about as much: of widths that are about as even, and of others."""
    candidates, uneven, units = [first], [], analysis.cost.units
    whole = spent(units)
    least = min(fairest(spent(first) / max(whole, 1)), float((first / units).min()))
    others: tuple[tuple[Align, LatencyTable | None], ...] = ((block, None), (2 * block, None), ("auto", table))
    for align, priced in others:
        with contextlib.suppress(BudgetError):
            kept = allocated(align, priced)
            alike = spent(kept) >= spent(first) - _ALIKE * whole
            if alike and not any((kept == other).all() for other in (*candidates, *uneven)):
                (candidates if (kept / units).min() >= least - _CLOSE else uneven).append(kept)
    return candidates, uneven


def _shares(analysis: Analysis, vectors: list[Array], place: Place) -> list[float]:
    """Of the original's time, measured in turns."""
    before, *after = measured(analysis, vectors, place, _SECONDS)
    return [ratio(before, timing) for timing in after]
