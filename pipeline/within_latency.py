"""A budget of milliseconds: the share of the MACs whose model, measured beside the original, is quick enough."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from ..passes.channels.apply_removal import apply_removal
from ..passes.errors import BudgetError
from ..passes.graph.export import to_model
from ..passes.selection.budget import Budget
from ..passes.selection.plan import Plan, removed_from_plan
from ..runtime.analysis import Analysis
from ..runtime.measure.latency import compare, ratio
from ..runtime.progress import Stage
from ..runtime.session import Device

_LEAST_SHARE, _ROUNDS = 0.1, 5


def plan_within_latency(
    analysis: Analysis,
    budget: Budget,
    plan: Callable[[Budget], Plan],
    *,
    device: Device,
    threads: int | None,
    progress: Stage,
) -> Plan:
    """The plan of the largest share of MACs that holds the budget, by bisection. Raises BudgetError with `possible`."""
    low, high, best, least = _LEAST_SHARE, 1.0, None, math.inf
    for share in itertools.chain([low], itertools.repeat(None, _ROUNDS)):
        asked = (low + high) / 2 if share is None else share
        progress(f"measuring latency at {asked:.0%} of the MACs")
        tried = plan(Budget(macs=asked))
        model = to_model(apply_removal(analysis.groups.labelled, removed_from_plan(analysis.groups, tried)))
        before, after = compare([analysis.graph.source, model], analysis.feeds, device=device, threads=threads)
        if ratio(before, after) * before.wall <= budget.limit(before.wall):
            best, low = tried, asked
        elif share is not None:
            least = ratio(before, after) * before.wall
            break
        else:
            high = asked
    if best is None:
        raise BudgetError(
            f"the latency cannot be met: with {_LEAST_SHARE:.0%} of the MACs it is {least:.3g} ms",
            where=analysis.name,
            fix="ask for more time, or look at what else the model spends it on (onnx-prune inspect)",
            possible=least,
        )
    return best
