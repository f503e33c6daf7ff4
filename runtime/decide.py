"""Deciding which units of which groups go, with all that has to be run for it."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..passes.allocate import allocate, select
from ..passes.apply_plan import apply_removal
from ..passes.budget import Budget
from ..passes.choice import word
from ..passes.criteria import make_criterion
from ..passes.errors import BudgetError, UsageError
from ..passes.export import to_model
from ..passes.moments import MomentsSet
from ..passes.plan import Plan, make_plan, removed_from_plan
from ..passes.ranking import Evidence, Ranking, rank_groups
from ..passes.reconstruct import KINDS
from ..passes.schedules import Error, Method, make_method
from ..passes.tradeoff import savings
from .analysis import Analysis
from .data import Data
from .latency import compare
from .sensitivity import sensitivity
from .settings import Settings

Progress = Callable[[str], None]
_SENSITIVITY_BATCHES = 2
_LEAST_SHARE, _LATENCY_ROUNDS = 0.1, 5


@dataclass(frozen=True, slots=True)
class Decision:
    """What a plan is made from: the analysed model, how to decide, and the data, where there are any."""

    analysis: Analysis
    settings: Settings
    data: Data | None
    progress: Progress

    def plan(self, budget: Budget, moments: MomentsSet | None) -> Plan:
        """Which units of which groups go."""
        settings, groups, cost = self.settings, self.analysis.groups, self.analysis.cost
        criterion = make_criterion(settings.criterion or ("l2" if moments is None else "obs"))
        by_data = "error" if self.data is None else "sensitivity"
        allocation = settings.allocation or ("uniform" if moments is None else by_data)
        reconstruct = self._reconstruction(moments)
        evidence = Evidence(groups, seed=settings.seed, moments=moments)
        with threadpool_limits(1):  # numpy's idle threads spin: on busy cores two are up to 100 times slower than one
            rankings = rank_groups(criterion, evidence)
            harms = self._sensitivity(rankings, moments) if allocation == "sensitivity" else rankings

        def within(limit: Budget) -> Plan:
            weighed = allocation in ("error", "sensitivity")
            method = Error(costs=savings(cost, limit.kind)) if weighed else make_method(allocation)
            kept = self._widths(harms, limit, method, spare_streams=weighed)
            made = make_plan(
                cost,
                select(groups, kept, criterion, evidence, rankings),
                budget,
                criterion=word(criterion),
                allocation=allocation if isinstance(allocation, str) else word(method),
                reconstruct=reconstruct,
                seed=settings.seed,
            )
            return replace(made, model=self.analysis.name)

        return self._within_latency(budget, within) if budget.kind == "latency" else within(budget)

    def _widths(
        self, harms: Mapping[str, Ranking], budget: Budget, method: Method, *, spare_streams: bool
    ) -> np.ndarray:
        """Units that each group keeps.

        spare_streams: channels that several layers make (residual sums) stay where the budget holds without them: on
        ResNet-56 at half of the MACs cutting them as well cost 0.5 points of top-1.
        """
        settings = self.settings
        streams = [re.escape(g.name) for g in self.analysis.groups.free if len(g.produced) > 1]
        if spare_streams and streams:
            spared = "|".join([*streams, *([settings.exclude] if settings.exclude else [])])
            with contextlib.suppress(BudgetError):
                return allocate(self.analysis.cost, harms, budget, method=method, align=settings.align, exclude=spared)
        return allocate(
            self.analysis.cost, harms, budget, method=method, align=settings.align, exclude=settings.exclude
        )

    def _within_latency(self, budget: Budget, plan: Callable[[Budget], Plan]) -> Plan:
        """The plan of the largest share of MACs whose model, measured beside the original, is quick enough."""
        low, high, best, least = _LEAST_SHARE, 1.0, None, math.inf
        for share in itertools.chain([low], itertools.repeat(None, _LATENCY_ROUNDS)):
            asked = (low + high) / 2 if share is None else share
            self.progress(f"measuring latency at {asked:.0%} of the MACs")
            tried = plan(Budget(macs=asked))
            labels = self.analysis.groups.labels
            model = to_model(apply_removal(labels, removed_from_plan(self.analysis.groups, tried)))
            models = [self.analysis.graph.source, model]
            before, after = compare(models, self.analysis.feeds, device=self.settings.device)
            if after <= budget.limit(before):
                best, low = tried, asked
            elif share is not None:
                least = after
                break
            else:
                high = asked
        if best is None:
            raise BudgetError(
                f"the latency cannot be met: with {_LEAST_SHARE:.0%} of the MACs it is {least:.3g} ms",
                where=self.analysis.name,
                fix="ask for more time, or look at what else the model spends it on (onnx-prune inspect)",
                possible=least,
            )
        return best

    def _sensitivity(self, rankings: Mapping[str, Ranking], moments: MomentsSet | None) -> Mapping[str, Ranking]:
        if self.data is None or moments is None:
            raise UsageError(
                "sensitivity is measured on data", where="--allocation", fix="give --calibration, or take uniform"
            )
        return sensitivity(
            self.analysis.groups,
            rankings,
            moments,
            itertools.islice(self.data, _SENSITIVITY_BATCHES),
            device=self.settings.device,
            progress=lambda done, of: self.progress(f"measuring sensitivity: {done} of {of} groups"),
        )

    def _reconstruction(self, moments: MomentsSet | None) -> str:
        """The kind of refit; raises UsageError where what it needs is not there."""
        by_data = "full" if self.data is None else "sequential"
        kind = self.settings.reconstruct or ("none" if moments is None else by_data)
        if kind not in KINDS:
            raise UsageError(f"there is no '{kind}'", where="--reconstruct", fix=f"choose one of {', '.join(KINDS)}")
        if (kind == "sequential" and self.data is None) or (kind != "none" and moments is None):
            raise UsageError(f"'{kind}' needs calibration data", where="--reconstruct", fix="give --calibration")
        return kind
