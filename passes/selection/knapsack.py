"""The least harm within so many milliseconds: a knapsack from which every group takes one of its widths.

    minimise sum_g harm_g(kept_g)  where  milliseconds(kept) <= limit,  kept_g one of the widths of group g

The milliseconds are bilinear in the widths (a node's time depends on both its sides), so that no price of a width is
right but beside the others. `exchange` asks the table again at every step; `linearised` solves the multiple-choice
knapsack exactly (branch and bound, scipy.optimize.milp) with prices that hold near the last solution, and repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from .latency_table import LatencyTable

Array = np.ndarray
_ROUNDS = 8  # of the linearised knapsack, and of exchanges: more changed nothing on the networks of docs/latency.md
_CLOSE = 1e-9  # of the limit, and of a harm
_PATIENCE = 5.0  # seconds, of one integer programme


@dataclass(frozen=True, slots=True)
class Menu:
    """The widths that a group may keep, ascending, the last one whole, and their harms: int64, float64."""

    group: int
    widths: Array
    harm: Array

    def __post_init__(self) -> None:
        assert len(self.widths) == len(self.harm) > 0
        assert (np.diff(self.widths) > 0).all(), "widths ascend"

    def harm_at(self, width: int) -> float:
        return float(self.harm[np.searchsorted(self.widths, width)])


def total_harm(menus: Sequence[Menu], kept: Array) -> float:
    """Of the groups that have a menu."""
    return sum(menu.harm_at(int(kept[menu.group])) for menu in menus)


def exchange(table: LatencyTable, menus: Sequence[Menu], limit: float) -> Array | None:
    """Widths by marginal exchange: (groups,) int64, or None where the narrowest widths take longer than the limit.

    From the whole network on, the width goes down that costs the least harm for each millisecond that it saves, at the
    widths that the others have then. Afterwards widths come back that fit, and one width is given for another as long
    as the harm falls.
    """
    kept = descend(table, menus, lambda kept: table.milliseconds(kept) <= limit * (1 + _CLOSE))
    return None if kept is None else _improved(table, menus, kept, limit)


def linearised(table: LatencyTable, menus: Sequence[Menu], limit: float) -> Array | None:
    """Widths by integer programmes whose prices are those beside the last solution; as `exchange` otherwise."""
    best: Array | None = None
    kept, slack = table.units, 0.0
    for _ in range(_ROUNDS):
        prices = [table.change(kept, menu.group, menu.widths) for menu in menus]
        chosen = _choose(menus, prices, limit - table.milliseconds(kept) - slack)
        if chosen is None:
            break
        tried = kept.copy()
        tried[[menu.group for menu in menus]] = chosen
        over = table.milliseconds(tried) - limit
        if over <= _CLOSE * limit and (best is None or total_harm(menus, tried) < total_harm(menus, best)):
            best = tried
        if (tried == kept).all():
            if over <= 0:
                break
            slack += over
        kept = tried
    if best is None:
        best = descend(table, menus, lambda kept: table.milliseconds(kept) <= limit * (1 + _CLOSE))
    return None if best is None else _improved(table, menus, best, limit)


Solver = Callable[[LatencyTable, Sequence[Menu], float], "Array | None"]
SOLVERS: dict[str, Solver] = {"exchange": exchange, "linearised": linearised}


@dataclass(frozen=True, slots=True)
class _Step:
    """Another width of a group: what it changes of the harm, and of the milliseconds."""

    group: int
    width: int
    harm: float
    ms: float

    def apply(self, kept: Array) -> Array:
        moved = kept.copy()
        moved[self.group] = self.width
        return moved


def _steps(table: LatencyTable, menu: Menu, kept: Array) -> list[_Step]:
    """Every other width of the group."""
    now = int(kept[menu.group])
    ms, harm = table.change(kept, menu.group, menu.widths), menu.harm - menu.harm_at(now)
    rows = zip(menu.widths.tolist(), harm.tolist(), ms.tolist(), strict=True)
    return [_Step(menu.group, width, h, m) for width, h, m in rows if width != now]


def descend(table: LatencyTable, menus: Sequence[Menu], fits: Callable[[Array], bool]) -> Array | None:
    """The first widths that fit, when what costs the least harm for each millisecond goes first; None where none do."""
    kept, touches = table.units.copy(), table.neighbours
    best: dict[int, _Step | None] = {}
    by_group = {menu.group: menu for menu in menus}
    while not fits(kept):
        for group, menu in by_group.items():
            if group not in best:
                down = [s for s in _steps(table, menu, kept) if s.width < kept[group] and s.ms < 0]
                best[group] = min(down, key=lambda s: s.harm / -s.ms, default=None)
        steps = [step for step in best.values() if step is not None]
        if not steps:
            return None
        step = min(steps, key=lambda s: s.harm / -s.ms)
        kept = step.apply(kept)
        for group in touches[step.group]:
            best.pop(group, None)
    return kept


def _improved(table: LatencyTable, menus: Sequence[Menu], kept: Array, limit: float) -> Array:
    """Widths that come back, and exchanges of two, while the harm falls."""
    kept = _filled(table, menus, kept, limit)
    for _ in range(_ROUNDS):
        better = _exchanged(table, menus, kept, limit)
        if better is None:
            break
        kept = better
    return kept


def _filled(table: LatencyTable, menus: Sequence[Menu], kept: Array, limit: float) -> Array:
    """Widths come back while they fit, most harm that goes for each millisecond first."""
    while True:
        room = limit - table.milliseconds(kept)
        fitting = [
            step
            for menu in menus
            for step in _steps(table, menu, kept)
            if step.ms <= room and (step.harm, step.ms) < (0, 0 if step.harm == 0 else np.inf)
        ]
        if not fitting:
            return kept
        kept = min(fitting, key=lambda s: s.harm / max(s.ms, _CLOSE * limit)).apply(kept)


def _exchanged(table: LatencyTable, menus: Sequence[Menu], kept: Array, limit: float) -> Array | None:
    """The best result of one group giving a width and the others taking what fits; None where it does no good."""
    harm, best = total_harm(menus, kept), None
    for menu in menus:
        down = [s for s in _steps(table, menu, kept) if s.width < kept[menu.group] and s.ms < 0]
        if not down:
            continue
        given = max(down, key=lambda s: s.width).apply(kept)
        others = [other for other in menus if other.group != menu.group]
        tried = _filled(table, others, given, limit)
        if total_harm(menus, tried) < harm * (1 - _CLOSE):
            harm, best = total_harm(menus, tried), tried
    return best


def _choose(menus: Sequence[Menu], prices: Sequence[Array], room: float) -> Array | None:
    """One width of each menu, the least harm whose prices sum up to no more than `room`; None where none does."""
    counts = [len(menu.widths) for menu in menus]
    rows = np.repeat(np.arange(len(menus)), counts)
    one = csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))))
    price = np.concatenate(prices)
    harm = np.concatenate([menu.harm for menu in menus])
    found = milp(
        harm / max(float(harm.max()), 1e-300),
        integrality=np.ones(len(rows)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint(price[None], -np.inf, room)],
        options={"time_limit": _PATIENCE, "mip_rel_gap": 1e-4},
    )
    if found.x is None:
        return None
    chosen = np.flatnonzero(found.x > 0.5)
    return np.concatenate([menu.widths for menu in menus])[chosen]
