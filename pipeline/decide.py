"""Deciding which units of which groups go, with all that has to be run for it."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet
from ..passes.channels.apply_removal import apply_removal
from ..passes.channels.groups import ChannelGroups
from ..passes.errors import BudgetError, UsageError
from ..passes.graph.export import to_model
from ..passes.rewrite.one_shot import KINDS
from ..passes.selection.allocate import allocate, excluded, select
from ..passes.selection.budget import Budget
from ..passes.selection.criteria import make_criterion
from ..passes.selection.criteria.gradients._of_gradients import OfGradients
from ..passes.selection.plan import Plan, make_plan, removed_from_plan
from ..passes.selection.presets import make_preset, most_sensitive
from ..passes.selection.ranking import Criterion, Evidence, Ranking, rank_groups
from ..passes.selection.schedules import Error, Method, Sensitivity, make_method
from ..passes.selection.tradeoff import savings
from ..passes.selection.words import word
from ..runtime.analysis import Analysis
from ..runtime.data.open import Data
from ..runtime.measure.latency import compare
from ..runtime.measure.sensitivity import Sensitivities, measure_sensitivity, scaled_by_network
from .settings import Settings

Progress = Callable[[str], None]
Harms = Callable[[frozenset[str]], Mapping[str, Ranking]]  # groups that stay -> rankings of at least the others
_SENSITIVITY_BATCHES = 2
_LEAST_SHARE, _LATENCY_ROUNDS = 0.1, 5


@dataclass(frozen=True, slots=True)
class Decision:
    """What a plan is made from: the analysed model, how to decide (see `make_settings`), and data, if there are any."""

    analysis: Analysis
    settings: Settings
    data: Data | None
    progress: Progress

    def plan(self, budget: Budget | None, moments: MomentsSet | None) -> Plan:
        """Which units of which groups go. Without a budget half of the MACs, or as few as the allocation ends with."""
        settings, groups, cost = self.settings, self.analysis.groups, self.analysis.cost
        assert settings.criterion is not None, "make_settings fills what is not given"
        assert settings.allocation is not None, "make_settings fills what is not given"
        criterion, method = make_criterion(settings.criterion), make_method(settings.allocation)
        reconstruct = self._reconstruction(moments)
        evidence = Evidence(groups, seed=settings.seed, moments=moments, gradients=self._gradients(criterion))
        with threadpool_limits(1):  # numpy's idle threads spin: on busy cores two are up to 100 times slower than one
            rankings = rank_groups(criterion, evidence)
            exclude = self._excluded(rankings)
        if isinstance(method, Sensitivity) and (self.data is None or moments is None):
            raise UsageError(
                "sensitivity is measured on data", where="--allocation", fix="give --calibration, or take uniform"
            )
        known: dict[str, Ranking] = {}

        def harms(stays: frozenset[str]) -> Mapping[str, Ranking]:
            """Of the groups that may be cut; what has to be measured for it is measured once."""
            asked = {name: ranking for name, ranking in rankings.items() if name not in stays | known.keys()}
            with threadpool_limits(1):
                known.update(self._scaled(asked, moments) if isinstance(method, Sensitivity) and asked else asked)
            return known

        def within(limit: Budget | None) -> Plan:
            kind = "macs" if limit is None else limit.kind
            priced = replace(method, costs=savings(cost, kind)) if isinstance(method, Error) else method
            kept = self._widths(harms, limit, priced, exclude)
            made = make_plan(
                cost,
                select(groups, kept, criterion, evidence, rankings),
                budget or Budget(macs=cost.macs(kept)),
                criterion=word(criterion),
                allocation=word(method),
                reconstruct=reconstruct,
                seed=settings.seed,
            )
            return replace(made, model=self.analysis.name)

        budget = budget or (None if method.ends else Budget())
        return self._within_latency(budget, within) if budget and budget.kind == "latency" else within(budget)

    def _widths(self, harms: Harms, budget: Budget | None, method: Method, exclude: frozenset[str]) -> np.ndarray:
        """Units that each group keeps.

        By error or sensitivity channels that several layers make (residual sums) stay where the budget holds without
        them: on ResNet-56 at half of the MACs cutting them as well cost 0.5 points of top-1.
        """
        cost, align = self.analysis.cost, self.settings.align
        if budget and budget.shares:
            return allocate(cost, {}, budget, align=align, exclude=exclude)
        spared = exclude | {g.name for g in self.analysis.groups.free if len(g.produced) > 1}
        if isinstance(method, Error) and spared > exclude:
            with contextlib.suppress(BudgetError):
                return allocate(cost, harms(spared), budget, method=method, align=align, exclude=spared)
        return allocate(cost, harms(exclude), budget, method=method, align=align, exclude=exclude)

    def _excluded(self, rankings: Mapping[str, Ranking]) -> frozenset[str]:
        """Names of the groups that stay: what the user says, else all that the preset leaves alone."""
        settings, groups = self.settings, self.analysis.groups
        stays = untouched(groups, settings)
        preset = None if settings.preset is None or settings.exclude is not None else make_preset(settings.preset)
        if preset is None or preset.spares is None:
            return stays
        touched = frozenset(group.name for group in groups.groups) - stays
        if self.data is None:
            return _some_cut(groups, settings, stays | preset.spares(groups))
        measured = self._measured({g.name: rankings[g.name] for g in groups.free if g.name in touched}, None)
        curves = {name: np.array(sorted(values.items())).T for name, values in measured.values.items() if values}
        half = {name: float(np.interp(groups[name].units / 2, *curve[:2])) for name, curve in curves.items()}
        return _some_cut(groups, settings, stays | most_sensitive(half))

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

    def sensitivities(self, moments: MomentsSet | None) -> Sensitivities:
        """How far the outputs move when one group alone is cut at a few levels; the data must be there."""
        criterion = make_criterion(self.settings.criterion or "obs")
        gradients = self._gradients(criterion)
        evidence = Evidence(self.analysis.groups, seed=self.settings.seed, moments=moments, gradients=gradients)
        with threadpool_limits(1):
            refitted = None if self.settings.reconstruct == "none" else moments
            return self._measured(rank_groups(criterion, evidence), refitted)

    def _gradients(self, criterion: Criterion) -> Mapping[str, np.ndarray] | None:
        """Of the groups' gates, where the criterion looks at them; raises UsageError without data, or without torch."""
        if not isinstance(criterion, OfGradients):
            return None
        if self.data is None:
            raise UsageError(
                f"'{word(criterion)}' looks at gradients, which are taken on data",
                where="--criterion",
                fix="give --calibration, or take l2",
            )
        from ..runtime.torch.gates.gradients import Wanted, gate_gradients

        return gate_gradients(
            self.analysis.groups,
            self.data,
            Wanted(criterion.labels, criterion.auxiliary, self.settings.seed),
            device=self.settings.device,
            progress=lambda done: self.progress(f"taking gradients: {done} samples"),
        )

    def _scaled(self, rankings: Mapping[str, Ranking], moments: MomentsSet | None) -> Mapping[str, Ranking]:
        return scaled_by_network(rankings, self._measured(rankings, moments))

    def _measured(self, rankings: Mapping[str, Ranking], moments: MomentsSet | None) -> Sensitivities:
        assert self.data is not None
        return measure_sensitivity(
            self.analysis.groups,
            rankings,
            moments,
            itertools.islice(self.data, _SENSITIVITY_BATCHES),
            device=self.settings.device,
            progress=lambda done, of: self.progress(f"measuring sensitivity: {done} of {of} groups"),
        )

    def _reconstruction(self, moments: MomentsSet | None) -> str:
        """The kind of refit; raises UsageError where what it needs is not there."""
        kind = self.settings.reconstruct
        if kind not in KINDS:
            raise UsageError(f"there is no '{kind}'", where="--reconstruct", fix=f"choose one of {', '.join(KINDS)}")
        if (kind == "sequential" and self.data is None) or (kind != "none" and moments is None):
            raise UsageError(f"'{kind}' needs calibration data", where="--reconstruct", fix="give --calibration")
        return kind


def untouched(groups: ChannelGroups, settings: Settings) -> frozenset[str]:
    """Names of the groups that the user excludes, or else that the preset does not touch, whatever is measured.

    Raises UsageError for a pattern that matches nothing, and where the preset touches nothing.
    """
    preset = None if settings.preset is None else make_preset(settings.preset)
    if settings.exclude is not None or preset is None or preset.touches is None:
        return excluded(groups, settings.exclude)
    return _some_cut(groups, settings, frozenset(g.name for g in groups.groups) - preset.touches(groups))


def _some_cut(groups: ChannelGroups, settings: Settings, stays: frozenset[str]) -> frozenset[str]:
    if stays.issuperset(group.name for group in groups.groups):
        raise UsageError(
            f"'{settings.preset}' finds no group in this model that it would cut",
            where="--preset",
            fix="say what stays yourself (--exclude), or leave the preset out",
        )
    return stays
