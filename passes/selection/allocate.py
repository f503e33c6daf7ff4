"""How many units each group keeps, so that the whole network meets a budget.

A method is a schedule of widths from the least to the whole network. The widest one that fits is found by bisection
with the exact cost; then single units are given back while the budget still holds, each group one at most.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from ..channels.cost import CostModel
from ..channels.groups import ChannelGroups
from ..errors import BudgetError, UsageError
from .budget import Budget
from .ranking import Criterion, Evidence, Ranking, Refining
from .schedules import Frame, Method, Schedule, Uniform

Array = np.ndarray
Align = int | Literal["auto"]
_NOUNS = {"macs": "MACs", "params": "parameters", "size": "file size", "channels": "channels"}
_EPSILON = 1e-9  # of a unit: 0.7 * 10 is 7
_AUTO_LEVELS = 4
_NEAR = 0.01  # of the original: how far below the limit is near enough


def allocate(
    cost: CostModel,
    rankings: Mapping[str, Ranking],
    budget: Budget | None,
    *,
    method: Method | None = None,
    align: Align = 1,
    exclude: str | Collection[str] | None = None,
) -> Array:
    """`kept`: int64, how many units each group of `cost.groups.groups` keeps; the budget holds from below.

    method: Uniform by default; rankings: of every free group, by its name (Uniform needs none). A method that ends by
    itself stops at the budget, if it comes as far, and needs none. With shares by pattern as the budget the method has
    no say: each group that a pattern matches keeps floor(share * units). align: a group that is cut keeps a multiple of
    it, a group of fewer units stays whole; "auto": see `alignment`. exclude: a regular expression that matches
    the whole names of groups that stay whole, or these names. Pinned groups stay, and every group keeps a unit. A
    budget of channels counts the units of the groups that may be cut. A latency has to be turned into another budget
    first.

    Raises BudgetError where the budget is out of reach (with `asked` and `possible`), UsageError for a pattern that
    matches nothing.
    """
    method = method or Uniform()
    if budget is not None and budget.shares is not None:
        frame = _frame(cost, 0.0, align, exclude)
        return frame.aligned(_by_pattern(frame, budget.shares))
    frame = _frame(cost, method.protect, align, exclude)
    if method.ends:
        least = frame.aligned(method.schedule(frame, rankings).widths(0))
        if budget is None:
            return least
        frame = replace(frame, least=least)
    assert budget is not None, "only a method that ends by itself needs no budget"
    measure = _measure(cost, frame, budget.kind)
    whole = measure(frame.units)
    limit = budget.limit(whole)
    if method.ends and measure(frame.least) > limit:
        return frame.least
    if measure(frame.least) > limit or (whole == 0 and budget.is_share and budget.amount < 1):
        raise _out_of_reach(cost, frame, budget, measure)
    if whole <= limit:
        return frame.units
    return _widest(frame, method.schedule(frame, rankings), measure, limit, limit - _NEAR * whole)


def select(
    groups: ChannelGroups,
    kept: Array,
    criterion: Criterion,
    evidence: Evidence,
    rankings: Mapping[str, Ranking] | None = None,
) -> dict[str, tuple[int, ...]]:
    """The removed units of each group that is cut, in ascending order, when group i keeps kept[i] of its units.

    Groups are ranked in the order of the graph, each with the evidence of what is already gone; a criterion that is not
    greedy does not look at that, and the given rankings serve. One that refines its choice does so for the count that
    is asked for.
    """
    removed: dict[str, tuple[int, ...]] = {}
    for group, count in zip(groups.groups, kept.tolist(), strict=True):
        if count < group.units:
            if rankings is not None and not getattr(criterion, "greedy", False):
                ranking = rankings[group.name]
            else:
                known = replace(evidence, removed=groups.removed_labels(removed))
                ranking = criterion.rank(group, known)
            gone = ranking.order[: group.units - count]
            if isinstance(criterion, Refining):
                gone = criterion.refine(group, evidence, gone)
            removed[group.name] = tuple(sorted(gone.tolist()))
    return removed


def alignment(units: Array, align: Align) -> Array:
    """What each group's kept count is a multiple of, (groups,) int64. Raises UsageError.

    "auto": the largest of 8, 16 and 32 that a group of so many units has at least four times, and 1 where there is
    none.
    """
    if align == "auto":
        return np.max([np.where(units >= _AUTO_LEVELS * n, n, 1) for n in (1, 8, 16, 32)], axis=0)
    if not isinstance(align, int) or align < 1:
        raise UsageError(f"channels cannot be aligned to {align}", where="--align", fix="say 1, 8, 16, 32 or auto")
    return np.full(len(units), align)


def excluded(groups: ChannelGroups, exclude: str | Collection[str] | None) -> frozenset[str]:
    """Names of the groups that stay. Raises UsageError for a regular expression that matches none."""
    if not isinstance(exclude, str):
        return frozenset(exclude or ())
    names = tuple(group.name for group in groups.groups)
    return frozenset(np.array(names)[_matches(exclude, names, "--exclude")].tolist())


def _frame(cost: CostModel, protect: float, align: Align, exclude: str | Collection[str] | None) -> Frame:
    names = tuple(group.name for group in cost.groups.groups)
    multiple = alignment(cost.units, align)
    stays = ~cost.free | np.isin(names, list(excluded(cost.groups, exclude)))
    least = np.ceil(np.maximum(cost.units * protect - _EPSILON, 1) / multiple).astype(np.int64) * multiple
    return Frame(names, cost.units, np.where(stays, cost.units, np.minimum(least, cost.units)), multiple)


def _matches(pattern: str, names: tuple[str, ...], option: str) -> Array:
    try:
        found = np.array([re.fullmatch(pattern, name) is not None for name in names], bool)
    except re.error as error:
        raise UsageError(
            f"'{pattern}' is not a valid regular expression ({error})",
            where=option,
            fix="escape special characters with a backslash",
        ) from None
    if not found.any():
        raise UsageError(
            f"no group's name matches '{pattern}'",
            where=f"{option}; the groups are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
            fix="a pattern has to match the whole name, as in 'layer3.*'; onnx-prune inspect lists all names",
        )
    return found


def _by_pattern(frame: Frame, shares: Mapping[str, float]) -> Array:
    widths = frame.units.astype(np.float64)
    for pattern, share in reversed(list(shares.items())):  # the first that matches decides
        matches = _matches(pattern, frame.names, "--channels")
        widths[matches] = share * frame.units[matches]
    return np.maximum(widths, frame.least)


def _measure(cost: CostModel, frame: Frame, kind: str) -> Callable[[Array], int]:
    if kind == "channels":
        counted = frame.least < frame.units
        return lambda kept: int(kept[counted].sum())
    if kind not in _NOUNS:
        raise UsageError(f"a budget of {kind} is not supported yet", where=f"--{kind}", fix="say it as --macs")
    return getattr(cost, kind)


def _widest(frame: Frame, schedule: Schedule, measure: Callable[[Array], int], limit: float, enough: float) -> Array:
    """The widest step within the limit, then one more unit, or multiple, for each group in turn, where that fits.

    Where groups with costly units leave the result below `enough`, the others go on growing, round by round.
    """
    low, high = 0, schedule.steps  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = measure(frame.aligned(schedule.widths(middle))) <= limit
        low, high = (middle, high) if fits else (low, middle)
    kept, turns, grown = frame.aligned(schedule.widths(low)), schedule.turns(low).tolist(), True
    while grown:
        grown = False
        for group in turns:
            wider = kept.copy()
            wider[group] = min(kept[group] + frame.align[group], frame.units[group])
            if wider[group] > kept[group] and measure(wider) <= limit:
                kept, grown = wider, True
        grown = grown and measure(kept) < enough
    return kept


def _out_of_reach(cost: CostModel, frame: Frame, budget: Budget, measure: Callable[[Array], int]) -> BudgetError:
    """Says what can be reached, rounded so that asking for it succeeds."""
    whole, least = measure(frame.units), measure(frame.least)
    share = least / whole if whole else 1.0
    possible = math.ceil(1000 * share) / 10
    asked = 100 * budget.amount if budget.is_share else 100 * budget.amount / whole
    pinned = int((~cost.free).sum())
    fixes = []
    if least < whole:
        fixes.append(f"ask for --{budget.kind} {f'{possible:g}%' if budget.is_share else least}")
    if frame.align.max() > 1:
        fixes.append("ask for a smaller --align")
    if (cost.free & (frame.least == frame.units) & (frame.units > frame.align)).any():
        fixes.append("exclude fewer groups")
    return BudgetError(
        f"the budget cannot be met: {100 - possible:.3g} % of the {_NOUNS[budget.kind]} can go, "
        f"{100 - asked:.3g} % were asked for",
        where=f"{pinned} of {len(frame.names)} groups are pinned (onnx-prune inspect names them)",
        fix=", or ".join(fixes) or None,
        asked=asked / 100,
        possible=share,
    )
