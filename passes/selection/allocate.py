"""How many units each group keeps, so that the whole network meets a budget.

A method lets the widths grow from the least to the whole network. The widest one that fits is found by bisection
with the exact cost; then single units are given back while the budget still holds, each group one at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..channels.cost import CostModel
from ..channels.groups import ChannelGroups
from ..errors import BudgetError
from ..needs import needs_of
from .budget import Budget
from .frames import Align, frame_of, matches, may_go, menus
from .latency_table import LatencyTable
from .methods import Error, Frame, Growth, Method, Uniform
from .milliseconds import EVEN, quickest_within, within_milliseconds
from .ranking import Criterion, Evidence, Ranking, Refining, ranked, refined

Array = np.ndarray
Measure = Callable[[Array], float]
_NOUNS = {"macs": "MACs", "params": "parameters", "size": "file size", "channels": "channels", "latency": "time"}
_NEAR = 0.01  # of the original: how far below the limit is near enough


def allocate(
    cost: CostModel,
    rankings: Mapping[str, Ranking],
    budget: Budget | None,
    *,
    method: Method | None = None,
    align: Align = 1,
    exclude: str | Collection[str] | None = None,
    table: LatencyTable | None = None,
) -> Array:
    """`kept`: int64, how many units each group of `cost.groups.groups` keeps; the budget holds from below.

    method: Uniform by default; rankings: of every free group, by its name (Uniform needs none). A method that ends by
    itself stops at the budget, if it comes as far, and needs none. With shares by pattern as the budget the method has
    no say: each group that a pattern matches keeps floor(share * units). align: a group that is cut keeps a multiple of
    it, a group of fewer units stays whole; "auto": see `menus`. exclude: a regular expression that matches
    the whole names of groups that stay whole, or these names. Pinned groups stay, and every group keeps a unit, unless
    the method lets some go entirely (`Error.whole`). A budget of channels counts the units of the groups that may be
    cut; one of latency asks the table. With a table any budget is met by what costs least harm for each millisecond.

    Raises BudgetError where the budget is out of reach (with `asked` and `possible`), UsageError for a pattern that
    matches nothing.
    """
    method = method or Uniform()
    exact = 1 if align == "auto" else align  # who names shares, and a method that ends by itself, mean what they say
    if budget is not None and budget.shares is not None:
        frame = frame_of(cost, 0.0, menus(cost.units, exact)[0], exclude)
        return frame.aligned(_by_pattern(frame, budget.shares))
    steps = menus(cost.units, exact if method.ends else align, coarse=isinstance(method, Uniform))
    frames = [frame_of(cost, method.protect, multiple, exclude) for multiple in steps]
    goes = may_go(cost, exclude) if isinstance(method, Error) and method.whole else None
    frames = [replace(frame, goes=goes) for frame in frames]
    if table is not None:
        assert budget is not None, "a table serves a budget"
        exactly = replace(_by_time_frame(cost, budget, method, menus(cost.units, exact)[0], exclude), goes=goes)
        kept = _by_time(cost, rankings, budget, method, exactly, table)
        if kept is not None:
            return cost.vanishing.completed(kept)
    if method.ends:
        least = frames[0].aligned(method.growth(frames[0], rankings).widths(0))
        if budget is None:
            return least
        measure = measure_of(cost, frames[0], budget.kind, table)
        if measure(least) > budget.limit(measure(frames[0].units)):
            return least
        frames = [replace(frames[0], least=least)]
    assert budget is not None, "only a method that ends by itself needs no budget"
    return cost.vanishing.completed(_nearest(cost, rankings, budget, method, frames, table))


def _by_time_frame(
    cost: CostModel, budget: Budget, method: Method, multiple: Array, exclude: str | Collection[str] | None
) -> Frame:
    """Where time is weighed against nothing but evenness, no group falls below a share."""
    even = isinstance(method, Uniform) and budget.kind != "latency"
    protect = max(method.protect, EVEN if even else 0.0)
    return frame_of(cost, protect, multiple, exclude)


def _by_time(
    cost: CostModel,
    rankings: Mapping[str, Ranking],
    budget: Budget,
    method: Method,
    frame: Frame,
    table: LatencyTable,
) -> Array | None:
    """By harm for each millisecond; None where the method says no harms, or nothing within its bounds fits."""
    if budget.kind == "latency":
        return within_milliseconds(table, frame, rankings, budget.limit(table.milliseconds(table.units)), method)
    measure = measure_of(cost, frame, budget.kind, table)
    limit = budget.limit(measure(frame.units))
    return quickest_within(table, frame, rankings, measure, limit, method)


def _nearest(
    cost: CostModel,
    rankings: Mapping[str, Ranking],
    budget: Budget,
    method: Method,
    frames: Sequence[Frame],
    table: LatencyTable | None,
) -> Array:
    """The widths of the first frame that comes near the budget; where none does, of the one that comes nearest.

    A later frame is finer; the last of several serves only where no other reaches the budget at all.
    """
    best: Array | None = None
    measure = measure_of(cost, frames[-1], budget.kind, table)
    whole = measure(frames[-1].units)
    limit = budget.limit(whole)
    enough = limit - _NEAR * whole
    for frame in frames:
        if (best is not None and frame is frames[-1]) or (whole == 0 and budget.is_share and budget.amount < 1):
            break
        if measure(frame.fewest) > limit:
            continue
        if whole <= limit:
            return frame.units
        kept = _widest(frame, method.growth(frame, rankings), measure, limit, enough)
        if best is None or measure(kept) > measure(best):
            best = kept
        if measure(best) >= enough:
            return best
    if best is None:
        raise _out_of_reach(cost, frames[-1], budget, measure)
    if len(frames) == 1 or budget.kind == "macs":
        return best
    turns = np.argsort(best / frames[-1].units, kind="stable").tolist()  # what is not counted in time is filled up
    return _grown(frames[-1], best, turns, measure, limit, enough)


def select(
    groups: ChannelGroups,
    kept: Array,
    criterion: Criterion,
    evidence: Evidence,
    rankings: Mapping[str, Ranking] | None = None,
) -> dict[str, tuple[int, ...]]:
    """The removed units of each group that is cut, in ascending order, when group i keeps kept[i] of its units.

    Groups are ranked in the order of the graph, each with the evidence of what is already gone; a criterion that
    does not need `removed` does not look at that, and the given rankings serve. One that refines its choice does so for
    the count that is asked for.
    """
    removed: dict[str, tuple[int, ...]] = {}
    for group, count in zip(groups.groups, kept.tolist(), strict=True):
        if count < group.units:
            if rankings is not None and "removed" not in needs_of(criterion):
                ranking = rankings[group.name]
            else:
                known = replace(evidence, removed=groups.removed_labels(removed))
                ranking = ranked(criterion, group, known)
            gone = ranking.order[: group.units - count]
            if count and isinstance(criterion, Refining):
                gone = refined(criterion, group, evidence, gone)
            removed[group.name] = tuple(sorted(gone.tolist()))
    return removed


def _by_pattern(frame: Frame, shares: Mapping[str, float]) -> Array:
    widths = frame.units.astype(np.float64)
    for pattern, share in reversed(list(shares.items())):  # the first that matches decides
        found = matches(pattern, frame.names, "--channels")
        widths[found] = share * frame.units[found]
    return np.maximum(widths, frame.least)


def measure_of(cost: CostModel, frame: Frame, kind: str, table: LatencyTable | None) -> Measure:
    """Kept -> what a budget of this kind counts."""
    if kind == "channels":
        counted = frame.fewest < frame.units
        return lambda kept: int(kept[counted].sum())
    if kind == "latency":
        assert table is not None, "a latency is measured before it is allocated"
        return table.milliseconds
    return getattr(cost, kind)


def _widest(frame: Frame, growth: Growth, measure: Measure, limit: float, enough: float) -> Array:
    """The widest step within the limit, then one more unit, or multiple, for each group in turn, where that fits.

    Where groups with costly units leave the result below `enough`, the others go on growing, round by round.
    """
    low, high = 0, growth.steps  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = measure(frame.aligned(growth.widths(middle))) <= limit
        low, high = (middle, high) if fits else (low, middle)
    return _grown(frame, frame.aligned(growth.widths(low)), growth.turns(low).tolist(), measure, limit, enough)


def _grown(frame: Frame, kept: Array, turns: Sequence[int], measure: Measure, limit: float, enough: float) -> Array:
    grown = True
    while grown:
        grown = False
        for group in turns:
            wider = kept.copy()
            wider[group] = min(max(kept[group] + frame.align[group], frame.least[group]), frame.units[group])
            if wider[group] > kept[group] and measure(wider) <= limit:
                kept, grown = wider, True
        grown = grown and measure(kept) < enough
    return kept


def _out_of_reach(cost: CostModel, frame: Frame, budget: Budget, measure: Measure) -> BudgetError:
    """Says what can be reached, rounded so that asking for it succeeds."""
    whole, least = measure(frame.units), measure(frame.fewest)
    share = least / whole if whole else 1.0
    possible = math.ceil(1000 * share) / 10
    asked = 100 * budget.amount if budget.is_share else 100 * budget.amount / whole
    pinned = int((~cost.free).sum())
    fixes = []
    if least < whole:
        fixes.append(f"ask for --{budget.kind} {f'{possible:g}%' if budget.is_share else least}")
    if frame.align.max() > 1:
        fixes.append("ask for a smaller --align")
    spared = int((cost.free & (frame.least == frame.units) & (frame.units > frame.align)).sum())
    if spared:
        fixes.append("exclude fewer groups")
    return BudgetError(
        f"the budget cannot be met: {100 - possible:.3g} % of the {_NOUNS[budget.kind]} can go, "
        f"{100 - asked:.3g} % were asked for",
        where=f"{pinned} of {len(frame.names)} groups are pinned (onnx-prune inspect names them)"
        + (f", {spared} stay whole by --exclude or the preset" if spared else ""),
        fix=", or ".join(fixes) or None,
        asked=asked / 100,
        possible=share,
    )
