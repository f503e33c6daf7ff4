"""How many units each group keeps within so many milliseconds: a method's harms, the table's widths, a knapsack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import BudgetError
from .knapsack import Menu, descend, exchange
from .latency_table import LatencyTable
from .methods import Error, Frame, Global, Method, Uniform
from .ranking import Ranking

Array = np.ndarray
# Where equal shares are meant and time says which may differ: no group loses more than so many times what each would,
# nor keeps less than this. (ResNet-56 at 90 % of its MACs, before any refit: top-1 of 64 % without it, 82 % when even.)
_UNEVEN, EVEN = 2.05, 0.4


def within_milliseconds(
    table: LatencyTable, frame: Frame, rankings: Mapping[str, Ranking], limit: float, method: Method
) -> Array | None:
    """`kept`, (groups,) int64, whose time by the table is at most `limit`; None where the method says no harms.

    A group whose frame has align 1 keeps one of the widths at which a stair of the table ends, others a multiple of it.
    Raises BudgetError, whose `possible` is the share of the time that the narrowest widths take.
    """
    if table.milliseconds(frame.units) <= limit:
        return frame.units
    menus = _menus(table, frame, rankings, method)
    if menus is None:
        return None
    kept = exchange(table, menus, limit)
    if kept is None:
        raise _out_of_reach(table, menus, limit)
    return kept


def quickest_within(
    table: LatencyTable,
    frame: Frame,
    rankings: Mapping[str, Ranking],
    counted: Callable[[Array], float],
    limit: float,
    method: Method,
) -> Array | None:
    """`kept`, (groups,) int64, that fits a budget of another kind, by harm for each millisecond, on the same widths.

    counted: what the budget limits. Where the method asks for nothing but evenness, `thriftiest_within` where that is
    quicker. None where nothing so narrow fits, or the method says no harms.
    """
    menus = _menus(table, frame, rankings, method)
    if menus is None:
        return None

    def fits(kept: Array) -> bool:
        return counted(kept) <= limit

    kept = descend(table, menus, fits)
    found = [] if kept is None else [_widened(kept, menus, fits)]
    if isinstance(method, Uniform):
        thrifty = thriftiest_within(table, frame, counted, limit)
        found += [] if thrifty is None else [thrifty]
    return min(found, key=table.milliseconds, default=None)


def fairest(share: float) -> float:
    """The share that each group keeps at least where equal ones are meant, and so much of the budget's unit stays.

    With equal shares s of all widths s^2 of the MACs, and of the weights, stay.
    """
    return max(EVEN, 1 - _UNEVEN * (1 - min(share, 1.0) ** 0.5))


def _widened(kept: Array, menus: Sequence[Menu], fits: Callable[[Array], bool]) -> Array:
    """Each group in turn as wide as still fits, the narrowest first."""
    for menu in sorted(menus, key=lambda menu: kept[menu.group] / menu.widths[-1]):
        for width in menu.widths[menu.widths > kept[menu.group]][::-1]:
            wider = kept.copy()
            wider[menu.group] = width
            if fits(wider):
                kept = wider
                break
    return kept


def thriftiest_within(
    table: LatencyTable, frame: Frame, counted: Callable[[Array], float], limit: float
) -> Array | None:
    """`kept`, (groups,) int64, by time alone: the quickest of two that leave little of the budget unused.

    One comes from the whole network, as what takes most milliseconds for each thing that is counted goes first; the
    other from the narrowest widths, as what takes least for each comes back. counted: what the budget limits. None
    where nothing within the frame fits.
    """
    widths = {g: _stairs(table, frame, g) for g in np.flatnonzero(frame.fewest < frame.units).tolist()}
    narrow = frame.units.copy()
    narrow[list(widths)] = [steps[0] for steps in widths.values()]
    if counted(narrow) > limit:
        return None
    starts = (narrow, _descended(table, counted, frame.units.copy(), widths, limit))
    found = [_refilled(table, counted, start, widths, limit) for start in starts]
    return min(found, key=table.milliseconds)


def _descended(
    table: LatencyTable, counted: Callable[[Array], float], kept: Array, widths: Mapping[int, Array], limit: float
) -> Array:
    """The first that fits, or what is narrow where nothing saves time any more."""
    best: dict[int, tuple[float, int, int]] = {}
    while counted(kept) > limit:
        for group in widths.keys() - best.keys():
            best[group] = _dearest(table, counted, kept, group, widths[group][widths[group] < kept[group]])
        _, group, width = max(best.values())
        kept[group] = width
        for other in table.neighbours[group]:
            best.pop(other, None)
    return kept


def _stairs(table: LatencyTable, frame: Frame, group: int) -> Array:
    """Widths at which a stair ends and that the frame allows, the whole one last."""
    steps, multiple = table.steps(group), int(frame.align[group])
    return steps[(steps >= frame.least[group]) & ((steps % multiple == 0) | (steps == frame.units[group]))]


def _rates(table: LatencyTable, counted: Callable[[Array], float], kept: Array, group: int, widths: Array) -> Array:
    """Milliseconds for each thing that is counted, of a change to each of these widths."""
    vectors = np.repeat(kept[None], len(widths), axis=0)
    vectors[:, group] = widths
    change = np.array([counted(vector) for vector in vectors]) - counted(kept)
    return table.change(kept, group, widths) / np.where(change == 0, np.inf, change)


def _dearest(
    table: LatencyTable, counted: Callable[[Array], float], kept: Array, group: int, widths: Array
) -> tuple[float, int, int]:
    """The narrower width that saves most for each thing that is counted: the rate, the group, the width."""
    if not len(widths):
        return -np.inf, group, 0
    rates = _rates(table, counted, kept, group, widths)
    return float(rates.max()), group, int(widths[rates.argmax()])


def _refilled(
    table: LatencyTable, counted: Callable[[Array], float], kept: Array, widths: Mapping[int, Array], limit: float
) -> Array:
    """The next wider width of one group after another, the cheapest first, while one fits."""
    while True:
        found = []
        for group, steps in widths.items():
            wider = kept.copy()
            wider[group] = next(iter(steps[steps > kept[group]]), kept[group])
            if wider[group] > kept[group] and counted(wider) <= limit:
                found.append((float(_rates(table, counted, kept, group, wider[[group]])[0]), group, int(wider[group])))
        if not found:
            return kept
        _, group, width = min(found)
        kept[group] = width


def _menus(table: LatencyTable, frame: Frame, rankings: Mapping[str, Ranking], method: Method) -> list[Menu] | None:
    menus = []
    for group in np.flatnonzero(frame.fewest < frame.units).tolist():
        units, align = int(frame.units[group]), int(frame.align[group])
        widths = table.steps(group) if align == 1 else np.unique([*range(align, units, align), units])
        widths = widths[widths >= frame.least[group]]
        if frame.fewest[group] == 0:
            widths = np.array([0, *widths])
        harm = _harm(method, frame, rankings, group, table)
        if harm is None:
            return None
        menus.append(Menu(group, widths, harm[units - widths]))
    return menus


def _harm(
    method: Method, frame: Frame, rankings: Mapping[str, Ranking], group: int, table: LatencyTable
) -> Array | None:
    """Of a group, by the number of units that go, (units + 1,)."""
    units = int(frame.units[group])
    if isinstance(method, Uniform):
        return _even(table, group, units)
    if not isinstance(method, Error | Global):
        return None
    ranking = rankings[frame.names[group]]
    harm = np.maximum.accumulate(np.concatenate([[0.0], ranking.harm]))
    if isinstance(method, Global) and not ranking.comparable:
        harm = harm * units / max(float(np.maximum.accumulate(np.diff(harm)).sum()), 1e-300)
    return harm


def _even(table: LatencyTable, group: int, units: int) -> Array:
    """The harm by which every group loses the same share: it grows as the square of the share, what it saves as that.

    So harm for a millisecond is equal where the shares are.
    """
    (saved,) = -table.change(table.units, group, np.ones(1, np.int64))
    return max(float(saved), 1e-12) * (np.arange(units + 1) / units) ** 2


def _out_of_reach(table: LatencyTable, menus: list[Menu], limit: float) -> BudgetError:
    narrow = table.units.copy()
    for menu in menus:
        narrow[menu.group] = menu.widths[0]
    least, whole = table.milliseconds(narrow), table.milliseconds(table.units)
    return BudgetError(
        f"the latency cannot be met: {limit / whole:.1%} of it was asked for, {least / whole:.1%} can be reached",
        where=f"{len(menus)} of {len(table.units)} groups can be narrower",
        fix="ask for more time, or see where it goes: onnx-prune bench MODEL --per-node",
        asked=limit / whole,
        possible=least / whole,
    )
