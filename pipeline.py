"""Where passes and runtime meet: read, decide, write, in the order of docs/architecture.md."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from .passes.allocate import allocate, select
from .passes.apply_plan import apply_removal
from .passes.budget import Budget
from .passes.channel_groups import ChannelGroups
from .passes.choice import word
from .passes.criteria import make_criterion
from .passes.criteria.apoz import OfActivations
from .passes.errors import BudgetError, UsageError
from .passes.export import infer_shapes, to_model
from .passes.files import save_model
from .passes.model import Graph, load
from .passes.moments import MomentsSet, load_moments
from .passes.plan import Plan, make_plan, recounted, removed_from_plan
from .passes.ranking import Criterion, Evidence, Ranking, rank_groups
from .passes.reconstruct import KINDS, refit_once
from .passes.report import GroupRow, Report
from .passes.schedules import Error, Method, make_method
from .passes.spill import file_bytes
from .passes.tradeoff import savings
from .runtime.analysis import Analysis, Source, analyse
from .runtime.calibrate import Calibration, calibrate
from .runtime.data import Data, open_data
from .runtime.data import Source as DataSource
from .runtime.folding import fold_weights
from .runtime.inputs import model_inputs
from .runtime.latency import compare
from .runtime.preprocess import Preprocessing
from .runtime.proof import prove_cut
from .runtime.reconstruct import refit_sequentially
from .runtime.sensitivity import sensitivity
from .runtime.session import Device

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A pruned model with how it came about: the plan says what was removed, the report what it brought."""

    model: onnx.ModelProto
    plan: Plan
    report: Report
    external: bool = False

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model so that the file appears whole or not at all."""
        return save_model(self.model, path, external=self.external)


@dataclass(frozen=True, slots=True)
class Settings:
    """How `prune` decides; every field is a flag of the command line. None: what suits the data that are given.

    criterion: which channels go (a name of `criteria()` or a Criterion): obs with calibration data, else l2;
    allocation: how many each group keeps: sensitivity with data, error with moments alone, else uniform;
    reconstruct: how what stays is refitted: sequential with data, full with moments alone, else none;
    calibration: images or arrays, see `runtime.data.open_data`; samples: so many of them are used; preprocessing: of
    images; moments: a file that `save_moments` wrote, instead of data; align: kept counts are multiples of it; exclude:
    a regular expression of group names that stay; inexact: whether LayerNorm and the like lose channels; seed: of all
    that is drawn; device: where models run; measure: whether latency is measured.
    """

    criterion: str | Criterion | None = None
    allocation: str | Method | None = None
    reconstruct: str | None = None
    calibration: DataSource | None = None
    samples: int = 1024
    preprocessing: Preprocessing | None = None
    moments: str | os.PathLike[str] | None = None
    save_moments: str | os.PathLike[str] | None = None
    align: int = 1
    exclude: str | None = None
    inexact: bool = False
    seed: int = 0
    device: Device = "auto"
    measure: bool = True


inspect = analyse


def prune(
    model: Source,
    *,
    budget: Budget | None = None,
    progress: Progress = lambda stage: None,
    sizes: Mapping[str, int] | None = None,
    **settings: object,
) -> Result:
    """Remove channels until the budget (what is kept; half of the MACs by default) holds, prove and measure it.

    settings: the fields of `Settings`. Raises BudgetError where the budget cannot be met, ProofError where the result
    does not compute what it must.
    """
    chosen = _settings(settings)
    budget = budget or Budget(macs=0.5)
    start = time.perf_counter()
    progress("reading the model")
    graph = fold_weights(load(model), device=chosen.device)
    data = _data(graph, chosen)
    example = None if data is None else {name: array[:1] for name, array in next(iter(data)).feeds.items()}
    read = {"device": chosen.device, "seed": chosen.seed, "inexact": chosen.inexact}
    analysis = analyse(graph, sizes=sizes, example=example, **read)
    run = _Run(replace(analysis, name=_name(model, graph)), chosen, progress, start, data)
    moments = run.measure()
    progress("choosing channels")
    return run.write(run.decide(budget, moments), moments)


def _name(model: Source, graph: Graph) -> str:
    return Path(model).name if isinstance(model, str | os.PathLike) else graph.source.graph.name


def _data(graph: Graph, settings: Settings) -> Data | None:
    if settings.calibration is None:
        return None
    inputs = model_inputs(graph.source)
    return open_data(settings.calibration, inputs, settings.preprocessing, samples=settings.samples, seed=settings.seed)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: what was read, and how it is to go."""

    analysis: Analysis
    settings: Settings
    progress: Progress
    start: float
    data: Data | None = None

    def measure(self) -> MomentsSet | None:
        """Moments of all consumers: measured on the data, read from a file, or none."""
        settings, data = self.settings, self.data
        if settings.moments is not None:
            return load_moments(settings.moments, self.analysis.graph.sha256())
        if data is None:
            return None
        activations = isinstance(make_criterion(settings.criterion or "obs"), OfActivations)
        how = Calibration(seed=settings.seed, device=settings.device, activations=activations)
        of = "" if data.samples is None else f" of {data.samples}"
        labels = self.analysis.groups.labels
        found = calibrate(
            labels, data, how=how, progress=lambda done: self.progress(f"calibrating: {done}{of} samples")
        )
        if settings.save_moments is not None:
            found.save(settings.save_moments)
        return found

    def decide(self, budget: Budget, moments: MomentsSet | None) -> Plan:
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

        def plan(within: Budget) -> Plan:
            weighed = allocation in ("error", "sensitivity")
            method = Error(costs=savings(cost, within.kind)) if weighed else make_method(allocation)
            kept = self._widths(harms, within, method, spare_streams=weighed)
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

        return self._within_latency(budget, plan) if budget.kind == "latency" else plan(budget)

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

    def write(self, plan: Plan, moments: MomentsSet | None = None) -> Result:
        """Cut, prove, refit, measure."""
        analysis, settings = self.analysis, self.settings
        labels, removed = analysis.groups.labels, removed_from_plan(analysis.groups, plan)
        plan = recounted(plan, analysis.cost, removed)
        self.progress("cutting")
        cut = apply_removal(labels, removed)
        model = to_model(cut)
        self.progress("proving")
        proof = prove_cut(labels, removed, model, analysis.feeds, settings.device)
        added = 0
        if moments is not None and plan.reconstruct != "none":
            with threadpool_limits(1):
                self._refit(removed, cut, moments, plan.reconstruct)
            model, proved = to_model(cut), model
            added = _added_elements(proved, model)
        model = infer_shapes(model)
        seconds = time.perf_counter() - self.start
        latency = None
        if settings.measure:
            self.progress("measuring latency")
            before, after = compare([analysis.graph.source, model], analysis.feeds, device=settings.device)
            latency = (before, after)
        report = Report(
            model=analysis.name,
            groups=tuple(_rows(analysis.groups, plan)),
            macs=plan.macs,
            params=(plan.params[0], plan.params[1] + added),
            size=(file_bytes(analysis.graph.source), file_bytes(model)),
            latency=latency,
            proof=proof.error,
            seconds=seconds,
        )
        return Result(model, plan, report, analysis.graph.external)

    def _refit(self, removed: np.ndarray, cut: Graph, moments: MomentsSet, kind: str) -> None:
        labels = self.analysis.groups.labels
        if kind != "sequential" or self.data is None:
            self.progress("refitting")
            refit_once(labels, removed, cut, moments, kind)
            return
        how = Calibration(positions=_REFIT_POSITIONS, seed=self.settings.seed, device=self.settings.device)
        refit_sequentially(
            labels,
            removed,
            cut,
            self.data,
            how,
            progress=lambda done, of: self.progress(f"refitting: {done} of {of} layers"),
        )


_SENSITIVITY_BATCHES = 2
_REFIT_POSITIONS = 32  # an image: the fit itself wants more rows than the choice of channels (docs/methods.md)
_LEAST_SHARE, _LATENCY_ROUNDS = 0.1, 5


def apply(
    model: Source, plan: Plan | str | os.PathLike[str], *, progress: Progress = lambda stage: None, **settings: object
) -> Result:
    """Redo a plan, on its model or another checkpoint of the same graph, with proof and measurement."""
    chosen = _settings(settings)
    start = time.perf_counter()
    loaded = plan if isinstance(plan, Plan) else Plan.load(plan)
    progress("reading the model")
    analysis = analyse(model, device=chosen.device, seed=chosen.seed, inexact=chosen.inexact)
    return _Run(analysis, chosen, progress, start).write(replace(loaded, model=analysis.name, reconstruct="none"))


def _settings(given: Mapping[str, object]) -> Settings:
    unknown = set(given) - set(Settings.__dataclass_fields__)
    if unknown:
        raise UsageError(
            f"unknown setting: {', '.join(sorted(unknown))}", fix=f"one of {', '.join(Settings.__dataclass_fields__)}"
        )
    return Settings(**given)  # type: ignore[arg-type]


def _added_elements(before: onnx.ModelProto, after: onnx.ModelProto) -> int:
    """How many parameters a refit has added: biases of layers that had none."""
    names = {tensor.name for tensor in before.graph.initializer}
    return sum(math.prod(tensor.dims) for tensor in after.graph.initializer if tensor.name not in names)


def _rows(groups: ChannelGroups, plan: Plan) -> list[GroupRow]:
    gone = plan.removed
    return [GroupRow(g.name, g.units, g.units - len(gone.get(g.name, ())), g.pinned) for g in groups.groups]
