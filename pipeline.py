"""Where passes and runtime meet: read, decide, write, in the order of docs/architecture.md."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from .passes.allocate import Method, allocate, make_method, select
from .passes.apply_plan import apply_removal
from .passes.budget import Budget
from .passes.channel_groups import ChannelGroups, channel_groups
from .passes.choice import word
from .passes.cost import CostModel, cost_model
from .passes.criteria import make_criterion
from .passes.errors import ProofError, ReadError, UsageError
from .passes.export import infer_shapes, to_model
from .passes.files import save_model
from .passes.labels import label_channels
from .passes.model import Graph, load
from .passes.plan import Plan, make_plan, removed_from_plan
from .passes.ranking import Criterion, Evidence, rank_groups
from .passes.report import GroupRow, Report
from .passes.shapes import input_shapes, tensor_facts
from .passes.silence import silence
from .passes.spill import file_bytes
from .runtime.feeds import runnable_feeds, sample_feeds
from .runtime.latency import compare
from .runtime.prove import Proof, max_relative_error, runs_on
from .runtime.session import Device
from .runtime.shapes import tensor_shapes

Source = str | os.PathLike[str] | bytes | onnx.ModelProto | Graph
Progress = Callable[[str], None]
TOLERANCE = 1e-4  # largest relative difference of the proof in float32; float64 and tiny graphs stay below 1e-12


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
class Analysis:
    """What was read of a model before anything is decided: its groups, its cost, and inputs on which it runs."""

    name: str
    graph: Graph
    groups: ChannelGroups
    cost: CostModel
    feeds: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Settings:
    """How `prune` decides; every field is a flag of the command line.

    criterion: which channels go (a name of `criteria()` or a Criterion); allocation: how many each group keeps;
    align: kept counts are multiples of it; exclude: a regular expression of group names that stay; seed: of all that
    is drawn; device: where models run; measure: whether latency is measured.
    """

    criterion: str | Criterion = "l2"
    allocation: str | Method = "uniform"
    align: int = 1
    exclude: str | None = None
    seed: int = 0
    device: Device = "auto"
    measure: bool = True


def analyse(
    model: Source, *, device: Device = "auto", seed: int = 0, sizes: Mapping[str, int] | None = None
) -> Analysis:
    """Label the channels of a model and group them. Runs it only where shapes cannot be inferred.

    sizes: values of the inputs' free dimensions by name. Raises ReadError where it is no model that can be read.
    """
    graph = load(model)
    feeds = _feeds(graph, device, seed, sizes)
    shapes = {name: tuple(array.shape) for name, array in feeds.items()}
    facts = tensor_facts(graph, shapes)
    if facts.unknown:
        with contextlib.suppress(ReadError):  # what stays unknown is pinned with that reason
            facts = tensor_facts(graph, shapes, known=tensor_shapes(graph.source, feeds, device=device))
    groups = channel_groups(label_channels(graph, facts))
    name = Path(model).name if isinstance(model, str | os.PathLike) else graph.source.graph.name
    return Analysis(name, graph, groups, cost_model(groups), feeds)


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
    analysis = analyse(model, device=chosen.device, seed=chosen.seed, sizes=sizes)
    progress("choosing channels")
    plan = decide(analysis, budget, chosen)
    return _write(analysis, plan, chosen, progress, start)


def decide(analysis: Analysis, budget: Budget, settings: Settings) -> Plan:
    """Which units of which groups go."""
    criterion, method = make_criterion(settings.criterion), make_method(settings.allocation)
    evidence = Evidence(analysis.groups, seed=settings.seed)
    rankings = rank_groups(criterion, evidence)
    kept = allocate(analysis.cost, rankings, budget, method=method, align=settings.align, exclude=settings.exclude)
    removed = select(analysis.groups, kept, criterion, evidence)
    plan = make_plan(
        analysis.cost, removed, budget, criterion=word(criterion), allocation=word(method), seed=settings.seed
    )
    return replace(plan, model=analysis.name)


def apply(
    model: Source, plan: Plan | str | os.PathLike[str], *, progress: Progress = lambda stage: None, **settings: object
) -> Result:
    """Redo a plan, on its model or another checkpoint of the same graph, with proof and measurement."""
    chosen = _settings(settings)
    start = time.perf_counter()
    loaded = plan if isinstance(plan, Plan) else Plan.load(plan)
    progress("reading the model")
    analysis = analyse(model, device=chosen.device, seed=chosen.seed)
    return _write(analysis, replace(loaded, model=analysis.name), chosen, progress, start)


def _settings(given: Mapping[str, object]) -> Settings:
    unknown = set(given) - set(Settings.__dataclass_fields__)
    if unknown:
        raise UsageError(
            f"unknown setting: {', '.join(sorted(unknown))}", fix=f"one of {', '.join(Settings.__dataclass_fields__)}"
        )
    return Settings(**given)  # type: ignore[arg-type]


def _feeds(graph: Graph, device: Device, seed: int, sizes: Mapping[str, int] | None) -> Mapping[str, np.ndarray]:
    """Random input for one run. A model whose batch alone is free is not run to find out."""
    free = any(not isinstance(d, int) or d <= 0 for dims in input_shapes(graph).values() for d in dims[1:])
    if free:
        return runnable_feeds(graph.source, seed=seed, sizes=sizes, device=device)
    return sample_feeds(graph.source, seed=seed, batch=1)


def _write(analysis: Analysis, plan: Plan, settings: Settings, progress: Progress, start: float) -> Result:
    labels = analysis.groups.labels
    removed = removed_from_plan(analysis.groups, plan)
    progress("cutting")
    model = infer_shapes(to_model(apply_removal(labels, removed)))
    progress("proving")
    proof = prove(analysis, model, removed, settings)
    seconds = time.perf_counter() - start
    latency = None
    if settings.measure:
        progress("measuring latency")
        before, after = compare([analysis.graph.source, model], analysis.feeds, device=settings.device)
        latency = (before, after)
    report = Report(
        model=analysis.name,
        groups=tuple(_rows(analysis.groups, plan)),
        macs=plan.macs,
        params=plan.params,
        size=(file_bytes(analysis.graph.source), file_bytes(model)),
        latency=latency,
        proof=proof.error,
        seconds=seconds,
    )
    return Result(model, plan, report, analysis.graph.external)


def _rows(groups: ChannelGroups, plan: Plan) -> list[GroupRow]:
    gone = plan.removed
    return [GroupRow(g.name, g.units, g.units - len(gone.get(g.name, ())), g.pinned) for g in groups.groups]


def prove(analysis: Analysis, model: onnx.ModelProto, removed: np.ndarray, settings: Settings) -> Proof:
    """Compare the cut model with the original with silenced consumers. Raises ProofError where they differ."""
    labels = analysis.groups.labels
    twin = to_model(silence(labels, removed))
    feeds = [analysis.feeds, *_second_batch(analysis)]
    try:
        proof = max_relative_error(model, twin, feeds, device=settings.device)
    except ReadError as error:
        usable = [f for f in feeds if runs_on(twin, f, device=settings.device)]
        if len(usable) in (0, len(feeds)):
            raise ProofError(
                "the cut model does not run", where=f"{analysis.name}: {error.what}", fix=_REPORT
            ) from error
        proof = max_relative_error(model, twin, usable, device=settings.device)
    if not proof.error <= TOLERANCE:
        raise ProofError(
            f"the cut model differs from the original with silenced channels by {proof.error:.2g}",
            where=f"output '{proof.output}' of {analysis.name}",
            fix=_REPORT,
            error=proof.error,
        )
    return proof


_REPORT = "nothing was written; this is a bug of onnx-prune: please report it with the graph (no weights are needed)"


def _second_batch(analysis: Analysis) -> list[Mapping[str, np.ndarray]]:
    """Where the batch is free, one more input of another batch size: nothing may be wired to the first one."""
    shapes = input_shapes(analysis.graph)
    if not shapes or any(not dims or isinstance(dims[0], int) for dims in shapes.values()):
        return []
    rng = np.random.default_rng(1)
    doubled = {}
    for name, array in analysis.feeds.items():
        fresh = rng.standard_normal(array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
        doubled[name] = np.concatenate([array, fresh])
    return [doubled]
