"""Deciding which units of which groups go, with all that has to be run for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet
from ..passes.channels.groups import ChannelGroups
from ..passes.errors import BudgetError, UsageError
from ..passes.rewrite.one_shot import KINDS
from ..passes.selection.allocate import allocate, excluded, select
from ..passes.selection.budget import Budget
from ..passes.selection.criteria import make_criterion
from ..passes.selection.criteria.gradients._of_gradients import OfGradients
from ..passes.selection.methods import Error, Method, Sensitivity, make_method
from ..passes.selection.plan import Plan, make_plan
from ..passes.selection.presets import make_preset, most_sensitive
from ..passes.selection.ranking import Criterion, Evidence, Ranking, rank_groups
from ..passes.selection.tradeoff import savings
from ..passes.selection.words import word
from ..runtime.analysis import Analysis
from ..runtime.data.open import Data
from ..runtime.data.sources import Batch
from ..runtime.measure.sensitivity import Sensitivities, measure_sensitivity, scaled_by_network
from ..runtime.progress import Stage, counted
from .settings import Settings
from .within_latency import plan_within_latency

_SENSITIVITY_IMAGES, _SENSITIVITY_MACS = (64, 256), 64 << 30  # images, the fewest and the most; in one pass over them


@dataclass(frozen=True, slots=True)
class Decision:
    """What a plan is made from: the analysed model, how to decide (see `make_settings`), and data, if there are any."""

    analysis: Analysis
    settings: Settings
    data: Data | None
    progress: Stage

    def plan(self, budget: Budget | None, moments: MomentsSet | None) -> Plan:
        """Which units of which groups go. Without a budget half of the MACs, or as few as the allocation ends with."""
        assert self.settings.allocation is not None, "make_settings fills what is not given"
        method, reconstruct = make_method(self.settings.allocation), self._reconstruction(moments)
        choice = self._choice(method, moments)
        wanted = budget or (None if method.ends else Budget())

        def within(limit: Budget | None) -> Plan:
            return self._planned(choice, self._widths(choice, limit), wanted, reconstruct)

        if wanted is None or wanted.kind != "latency":
            return within(wanted)
        return plan_within_latency(
            self.analysis,
            wanted,
            within,
            device=self.settings.device,
            threads=self.settings.threads,
            progress=self.progress,
        )

    def evidence(self, criterion: Criterion, moments: MomentsSet | None) -> Evidence:
        """What the criterion may look at; what it needs and nobody has measured yet is measured."""
        return Evidence(
            self.analysis.groups, seed=self.settings.seed, moments=moments, gradients=self._gradients(criterion)
        )

    def _choice(self, method: Method, moments: MomentsSet | None) -> _Choice:
        """Every free group ranked, and the groups that stay."""
        if isinstance(method, Sensitivity) and (self.data is None or moments is None):
            raise UsageError(
                "sensitivity is measured on data", where="--allocation", fix="give --calibration, or take uniform"
            )
        assert self.settings.criterion is not None, "make_settings fills what is not given"
        criterion = make_criterion(self.settings.criterion)
        evidence = self.evidence(criterion, moments)
        with threadpool_limits(1):  # numpy's idle threads spin: on busy cores two are up to 100 times slower than one
            rankings = rank_groups(criterion, evidence)
            exclude = self._excluded(rankings)
        scaled = (lambda some: self._scaled(some, moments)) if isinstance(method, Sensitivity) else dict
        return _Choice(criterion, method, evidence, rankings, exclude, scaled)

    def _planned(self, choice: _Choice, kept: np.ndarray, budget: Budget | None, reconstruct: str) -> Plan:
        """The plan that keeps so many units of each group. budget: as it was asked for, what is kept where none was."""
        cost = self.analysis.cost
        plan = make_plan(
            cost,
            select(self.analysis.groups, kept, choice.criterion, choice.evidence, choice.rankings),
            budget or Budget(macs=cost.macs(kept)),
            criterion=word(choice.criterion),
            allocation=word(choice.method),
            reconstruct=reconstruct,
            seed=self.settings.seed,
        )
        return replace(plan, model=self.analysis.name)

    def _widths(self, choice: _Choice, budget: Budget | None) -> np.ndarray:
        """Units that each group keeps.

        By error or sensitivity channels that several layers make (residual sums) stay where the budget holds without
        them: on ResNet-56 at half of the MACs cutting them as well cost 0.5 points of top-1.
        """
        cost, align, method, exclude = self.analysis.cost, self.settings.align, choice.method, choice.exclude
        if budget and budget.shares:
            return allocate(cost, {}, budget, align=align, exclude=exclude)
        if not isinstance(method, Error):
            return allocate(cost, choice.harms(exclude), budget, method=method, align=align, exclude=exclude)
        priced = replace(method, costs=savings(cost, "macs" if budget is None else budget.kind))
        spared = exclude | {g.name for g in self.analysis.groups.free if len(g.produced) > 1}
        if spared > exclude:
            with contextlib.suppress(BudgetError):
                return allocate(cost, choice.harms(spared), budget, method=priced, align=align, exclude=spared)
        return allocate(cost, choice.harms(exclude), budget, method=priced, align=align, exclude=exclude)

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

    def sensitivities(self, moments: MomentsSet | None) -> Sensitivities:
        """How far the outputs move when one group alone is cut at a few levels; the data must be there."""
        criterion = make_criterion(self.settings.criterion or "obs")
        evidence = self.evidence(criterion, moments)
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
            Wanted(criterion.labels, criterion.auxiliary, criterion.tuned, self.settings.seed),
            device=self.settings.device,
            progress=counted(self.progress, "taking gradients", "samples"),
        )

    def _scaled(self, rankings: Mapping[str, Ranking], moments: MomentsSet | None) -> Mapping[str, Ranking]:
        return scaled_by_network(rankings, self._measured(rankings, moments))

    def _measured(self, rankings: Mapping[str, Ranking], moments: MomentsSet | None) -> Sensitivities:
        assert self.data is not None
        return measure_sensitivity(
            self.analysis.groups,
            rankings,
            moments,
            _first(self.data, self._sensitivity_images()),
            device=self.settings.device,
            progress=counted(self.progress, "measuring sensitivity", "groups"),
        )

    def _sensitivity_images(self) -> int:
        macs = self.analysis.cost.macs(self.analysis.cost.units)
        return int(np.clip(_SENSITIVITY_MACS // max(macs, 1), *_SENSITIVITY_IMAGES))

    def _reconstruction(self, moments: MomentsSet | None) -> str:
        """The kind of refit; raises UsageError where what it needs is not there."""
        kind = self.settings.reconstruct
        if kind not in KINDS:
            raise UsageError(f"there is no '{kind}'", where="--reconstruct", fix=f"choose one of {', '.join(KINDS)}")
        if (kind == "sequential" and self.data is None) or (kind != "none" and moments is None):
            raise UsageError(f"'{kind}' needs calibration data", where="--reconstruct", fix="give --calibration")
        return kind


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """What widths and units are chosen by.

    rankings: of every free group; exclude: names of the groups that stay; scaled: rankings -> those with the harms that
    the method goes by, which may have to be measured.
    """

    criterion: Criterion
    method: Method
    evidence: Evidence
    rankings: Mapping[str, Ranking]
    exclude: frozenset[str]
    scaled: Callable[[Mapping[str, Ranking]], Mapping[str, Ranking]]
    _harms: dict[str, Ranking] = field(default_factory=dict)

    def harms(self, stays: frozenset[str]) -> Mapping[str, Ranking]:
        """Rankings of at least the groups that may be cut when these stay; what has to be measured is measured once."""
        missing = {name: rank for name, rank in self.rankings.items() if name not in stays | self._harms.keys()}
        if missing:
            with threadpool_limits(1):
                self._harms.update(self.scaled(missing))
        return self._harms


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


def _first(data: Data, images: int) -> Iterator[Batch]:
    """The first batches of the data, until so many samples are in them."""
    seen = 0
    for batch in data:
        yield batch
        seen += batch.size
        if seen >= images:
            return
