"""Deciding which units of which groups go, with all that has to be run for it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet
from ..passes.channels.groups import ChannelGroups
from ..passes.errors import BudgetError, UsageError
from ..passes.needs import needs_of
from ..passes.selection.allocate import allocate
from ..passes.selection.budget import Budget
from ..passes.selection.frames import Align, excluded
from ..passes.selection.latency_table import LatencyTable
from ..passes.selection.methods import Amc, Uniform
from ..passes.selection.plans.plan import Plan
from ..passes.selection.plans.planned import make_plan
from ..passes.selection.presets import make_preset, most_sensitive
from ..passes.selection.ranking import Evidence, Ranking, Rankings, rank_groups
from ..passes.selection.words import word
from ..runtime.latency.batched import of_batch
from ..runtime.latency.model import Place
from ..runtime.measure.sensitivity import LEVELS, Sensitivities, scaled_by_network
from ..runtime.processes.together import together
from ..runtime.progress import Count, counted, silent
from .latency.quickest import quickest
from .latency.within import timing_layers, within_latency
from .measure import evidence_of, priced, selected, sensitivities_of, trained_run
from .report import Curves, curves_of
from .run import Run
from .search_widths import Searched
from .settings import Settings


def decide(run: Run, budget: Budget | None, moments: MomentsSet | None) -> Plan:
    """Which units of which groups go. Without a budget half of the MACs, or as few as the allocation ends with."""
    return planner(run, moments)(budget)


def planner(run: Run, moments: MomentsSet | None) -> Planner:
    """`decide` for any number of budgets: rankings, and what has to be measured for widths, are made once."""
    _preset_widths(run, None)  # whether the preset suits the model is known before the work
    return Planner(run, _choice(run, moments))


@dataclass(frozen=True, slots=True, eq=False)
class Planner:
    """Plans for any budget from one choice."""

    run: Run
    choice: _Choice

    def __call__(self, asked: Budget | None) -> Plan:
        """Which units of which groups go: of several processes those that the first one found, which may go by time."""
        return together().same(self._plan(asked))

    def _plan(self, asked: Budget | None) -> Plan:
        run, choice = self.run, self.choice
        budget = _preset_widths(run, asked)
        wanted = budget or (None if run.strategy.ends else Budget())
        widths = partial(_widths, run, choice)
        if wanted is None or wanted.kind != "latency":
            return _planned(run, choice, widths(wanted), wanted)
        place = Place(run.settings.device, run.settings.threads)
        timed = of_batch(run.analysis, run.settings.latency_batch)
        return _planned(run, choice, within_latency(timed, wanted, widths, place, run.progress), wanted)

    def ready(self, plan: Plan) -> Run:
        """The run that the plan is to be cut in: on the network that the criterion has trained, where it has."""
        trained = together().same(self.choice.trained.get(plan.digest))
        return self.run if trained is None else trained_run(self.run, trained)

    @property
    def curves(self) -> Curves:
        """What it has measured so far to choose by."""
        measured = self.choice.measured
        merged = {name: values for found in measured for name, values in found.values.items()}
        return curves_of(self.choice.rankings.made, Sensitivities(measured[0].kind, merged) if measured else None)


def _preset_widths(run: Run, budget: Budget | None) -> Budget | None:
    """The budget, or the shares that the preset says. Raises UsageError where both are said."""
    preset = None if run.settings.preset is None else make_preset(run.settings.preset)
    if preset is None or preset.shares is None:
        return budget
    if budget is not None:
        raise UsageError(
            f"'{run.settings.preset}' says what every layer keeps, and so does --{budget.kind}",
            where="--preset",
            fix="leave the budget out, or take --preset li",
        )
    shares = preset.shares(run.analysis.groups)
    return Budget(channels={re.escape(name): share for name, share in shares.items()})


def sensitivities(run: Run, moments: MomentsSet | None, levels: Sequence[float] = LEVELS) -> Sensitivities:
    """How far the outputs move when one group alone loses these shares of its units; the data must be there."""
    evidence = evidence_of(run, moments)
    with threadpool_limits(1):
        refitted = None if run.strategy.reconstruct == "none" else moments
        return sensitivities_of(run, rank_groups(run.strategy.criterion, evidence), refitted, levels)


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """What widths and units are chosen by.

    evidence: what the criterion looked at
    rankings: of every free group
    exclude: names of the groups that stay
    scaled: rankings -> those with the harms that the allocation goes by, which may have to be measured
    measured: the sensitivities that were, so far
    trained: the networks that plans are to be cut from, by the plan's digest, where the criterion has trained one
    progress: is told how many groups are ranked
    """

    evidence: Evidence
    rankings: Rankings
    exclude: frozenset[str]
    scaled: Callable[[Mapping[str, Ranking]], Mapping[str, Ranking]]
    measured: list[Sensitivities] = field(default_factory=list)
    trained: dict[str, onnx.ModelProto] = field(default_factory=dict)
    progress: Count = silent
    _harms: dict[str, Ranking] = field(default_factory=dict)

    def harms(self, stays: frozenset[str]) -> Mapping[str, Ranking]:
        """Rankings of at least the groups that may be cut when these stay; what has to be measured is measured once."""
        missing = [name for name in self.rankings if name not in stays | self._harms.keys()]
        if missing:
            with threadpool_limits(1):  # numpy's idle threads spin: on busy cores two are up to 100 times slower
                self._harms.update(self.scaled(self.rankings.of(missing, self.progress)))
        return self._harms


def _choice(run: Run, moments: MomentsSet | None) -> _Choice:
    """Every free group ranked, and the groups that stay."""
    evidence = evidence_of(run, moments)
    rankings = Rankings(run.strategy.criterion, evidence)
    with threadpool_limits(1):
        exclude = _excluded(run, rankings)

    measured: list[Sensitivities] = []

    def scaled(some: Mapping[str, Ranking]) -> Mapping[str, Ranking]:
        measured.append(sensitivities_of(run, some, moments))
        return scaled_by_network(some, measured[-1])

    by_network = "sensitivity" in needs_of(run.strategy.allocation)
    progress = counted(run.progress, "choosing channels", "groups")
    return _Choice(evidence, rankings, exclude, scaled if by_network else dict, measured, progress=progress)


def _planned(run: Run, choice: _Choice, kept: np.ndarray, budget: Budget | None) -> Plan:
    """The plan that keeps so many units of each group. budget: as it was asked for, what is kept where none was."""
    cost, strategy = run.analysis.cost, run.strategy
    found = selected(run, kept, (choice.evidence, choice.rankings), choice.exclude, budget)
    plan = make_plan(
        cost,
        found.removed,
        budget or Budget(macs=cost.macs(cost.kept(found.removed))),
        criterion=word(strategy.criterion),
        allocation=word(strategy.allocation),
        reconstruct=strategy.reconstruct,
        seed=run.settings.seed,
    )
    if found.trained is not None:
        choice.trained[plan.digest] = found.trained
    return replace(plan, model=run.analysis.name, sampled=run.extra == "samplers", placed=run.extra == "placers")


def _widths(run: Run, choice: _Choice, budget: Budget | None, table: LatencyTable | None = None) -> np.ndarray:
    """(groups,) int64: the units that each group keeps under the budget; groups of `choice.exclude` keep all.

    An allocation that weighs harm against costs leaves channels that several layers make (residual sums) whole where
    the budget holds without them: on ResNet-56 at half of the MACs cutting them as well cost 0.5 points of top-1.
    Raises BudgetError where the budget is out of reach.
    """

    def allocated(stays: frozenset[str], harms: Mapping[str, Ranking]) -> np.ndarray:
        return _allocated(run, harms, budget, stays, run.strategy.align, table)

    if budget and budget.shares:
        return allocated(choice.exclude, {})
    if budget is None and not run.strategy.allocation.ends:
        return run.analysis.cost.units  # at most: the criterion ends by itself
    if isinstance(run.strategy.allocation, Amc):
        searched = Searched(run, choice.evidence, choice.rankings, choice.exclude)
        return searched.widths(run.strategy.allocation, budget or Budget(), table)
    if table is None and budget is not None and _free_of_harm(run, budget):
        within = partial(_allocated, run, {}, budget, choice.exclude)
        place = Place(run.settings.device, run.settings.threads, timing_layers(run.progress))
        spent = getattr(run.analysis.cost, budget.kind)
        return quickest(of_batch(run.analysis, run.settings.latency_batch), within, spent, place)
    sums = frozenset(group.name for group in run.analysis.groups.free if len(group.produced) > 1)
    if "costs" in needs_of(run.strategy.allocation) and sums - choice.exclude:
        stays = choice.exclude | sums
        with contextlib.suppress(BudgetError):
            return allocated(stays, choice.harms(stays))
    return allocated(choice.exclude, choice.harms(choice.exclude))


def _allocated(
    run: Run,
    harms: Mapping[str, Ranking],
    budget: Budget | None,
    stays: frozenset[str],
    align: Align,
    table: LatencyTable | None,
) -> np.ndarray:
    method = priced(run, budget)
    return allocate(run.analysis.cost, harms, budget, method=method, align=align, exclude=stays, table=table)


def _free_of_harm(run: Run, budget: Budget) -> bool:
    """Whether nothing but time speaks for some widths rather than others that meet the budget as well."""
    free = isinstance(run.strategy.allocation, Uniform) and run.strategy.align == "auto"
    return free and run.settings.measure and budget.kind in ("macs", "params", "size")


def _excluded(run: Run, rankings: Mapping[str, Ranking]) -> frozenset[str]:
    """Names of the groups that stay: what the user says, else all that the preset leaves alone."""
    settings, groups = run.settings, run.analysis.groups
    stays = untouched(groups, settings)
    preset = None if settings.preset is None or settings.exclude is not None else make_preset(settings.preset)
    if preset is None or preset.spares is None:
        return stays
    touched = frozenset(group.name for group in groups.groups) - stays
    if run.data is None:
        return _some_cut(groups, settings, stays | preset.spares(groups))
    measured = sensitivities_of(run, {g.name: rankings[g.name] for g in groups.free if g.name in touched}, None)
    curves = {name: np.array(sorted(values.items())).T for name, values in measured.values.items() if values}
    half = {name: float(np.interp(groups[name].units / 2, *curve[:2])) for name, curve in curves.items()}
    return _some_cut(groups, settings, stays | most_sensitive(half))


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
        assert settings.preset is not None, "without one all that is free may be cut"
        words = make_preset(settings.preset)
        raise UsageError(
            f"'{settings.preset}' finds no group in this model that it would cut",
            where="--preset",
            fix=f"take its criterion alone, --criterion {words.criterion} --allocation {words.allocation}, or say what "
            "stays yourself (--exclude)",
        )
    return stays
