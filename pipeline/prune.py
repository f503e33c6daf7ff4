"""Where passes and runtime meet: read, decide, write, in the order of docs/architecture.md."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet, load_moments
from ..passes.channels.apply_removal import apply_removal
from ..passes.channels.groups import ChannelGroups
from ..passes.errors import UsageError
from ..passes.graph.export import infer_shapes, to_model
from ..passes.graph.files import save_model
from ..passes.graph.model import Graph, load
from ..passes.graph.spill import file_bytes
from ..passes.rewrite.one_shot import refit_once
from ..passes.rewrite.replace_head import find_head
from ..passes.selection.budget import Budget
from ..passes.selection.criteria import make_criterion
from ..passes.selection.criteria.activations.apoz import OfActivations
from ..passes.selection.plan import Plan, recounted, removed_from_plan
from ..runtime.analysis import Analysis, Source, analyse
from ..runtime.data.inputs import model_inputs
from ..runtime.data.open import Data, example_input, open_data
from ..runtime.data.synthetic import reads_images, synthetic_data
from ..runtime.fit_head import fit_head
from ..runtime.measure.calibrate import Calibration, calibrate
from ..runtime.measure.latency import compare
from ..runtime.measure.sensitivity import Sensitivities
from ..runtime.proof.prove import prove_cut
from ..runtime.reconstruct import refit_sequentially
from ..runtime.soundness import check_anything_free, check_opens, check_weights
from .decide import Decision, untouched
from .report import GroupRow, Report
from .settings import NONE, SYNTHETIC, SYNTHETIC_IF_IMAGES, Settings, filled, make_settings

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A pruned model with how it came about: the plan says what was removed, the report what it brought."""

    model: onnx.ModelProto
    plan: Plan
    report: Report
    external: bool = False
    original: onnx.ModelProto | None = None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model so that the file appears whole or not at all."""
        return save_model(self.model, path, external=self.external, original=self.original)


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
    run = _read(model, make_settings(settings), progress, sizes)
    if run.settings.replace_head is not None:
        find_head(run.analysis.groups.labels)  # before the work
    else:
        check_anything_free(run.analysis.groups)
    moments = run.measure()
    progress("choosing channels")
    return run.write(run.decision.plan(budget, moments), moments)


def sensitivity(
    model: Source,
    *,
    progress: Progress = lambda stage: None,
    sizes: Mapping[str, int] | None = None,
    **settings: object,
) -> tuple[Analysis, Sensitivities]:
    """What was read, and how far the outputs move when one group alone loses a share of its units.

    The units go in the order of the criterion, and what is left of the group's readers is refitted on the moments,
    unless reconstruct="none". settings: the fields of `Settings`, `calibration` among them. Raises UsageError where
    there are no data.
    """
    run = _read(model, make_settings(settings), progress, sizes)
    if run.data is None:
        raise UsageError("sensitivity is measured on data", where="--calibration", fix="give images or arrays")
    return run.analysis, run.decision.sensitivities(run.measure())


def _read(model: Source, settings: Settings, progress: Progress, sizes: Mapping[str, int] | None) -> _Run:
    """Open the data and label the channels of the model, for inputs of their size."""
    start = time.perf_counter()
    progress("reading the model")
    graph = load(model)
    check_opens(graph, settings.device)
    example = _example(graph, settings)
    data = _given_data(graph, settings) if example is None else None
    if data is not None:
        example = data.example()
    read = {"device": settings.device, "seed": settings.seed, "inexact": settings.inexact}
    analysis = analyse(graph, sizes=sizes, example=example, **read)
    check_weights(analysis.groups)
    untouched(analysis.groups, settings)  # what matches nothing is said before the work
    if data is None:
        data = _synthetic_data(analysis, settings)
    analysis = replace(analysis, name=_name(model, graph))
    return _Run(analysis, filled(settings, data=data is not None), progress, start, data)


def _name(model: Source, graph: Graph) -> str:
    return Path(model).name if isinstance(model, str | os.PathLike) else graph.source.graph.name


def _given_data(graph: Graph, settings: Settings) -> Data | None:
    source = settings.calibration
    if source is None or source in (NONE, SYNTHETIC, SYNTHETIC_IF_IMAGES):
        return None
    inputs = model_inputs(graph.source)
    return open_data(source, inputs, settings.preprocessing, samples=settings.samples, seed=settings.seed)


def _example(graph: Graph, settings: Settings) -> dict[str, np.ndarray] | None:
    """What is given as calibration data, where it is one input for one run: the model is read for it, no more."""
    source = settings.calibration
    if source is None or source in (NONE, SYNTHETIC, SYNTHETIC_IF_IMAGES):
        return None
    return example_input(source, model_inputs(graph.source))


def _synthetic_data(analysis: Analysis, settings: Settings) -> Data | None:
    """Synthetic images, where they are asked for, or nothing is and a run over the fewest is cheap.

    As many as cost about as much to run as 512 small ones. Raises UsageError where they are asked for and the model
    does not read images.
    """
    if settings.calibration not in (SYNTHETIC, SYNTHETIC_IF_IMAGES):
        return None
    macs = analysis.cost.macs(analysis.cost.units)
    if settings.calibration == SYNTHETIC_IF_IMAGES and macs * _SYNTHETIC_IMAGES[0] > _SYNTHETIC_MACS:
        return None  # minutes, where a command that says nothing of data is expected to take seconds
    inputs = model_inputs(analysis.graph.source)
    if reads_images(inputs, analysis.feeds):
        samples = min(settings.samples, int(np.clip(_SYNTHETIC_MACS // max(macs, 1), *_SYNTHETIC_IMAGES)))
        return synthetic_data(inputs, analysis.feeds, settings.preprocessing, samples, settings.seed)
    if settings.calibration == SYNTHETIC:
        raise UsageError(
            "the model does not read images", where="--calibration synthetic", fix="give data, or --calibration none"
        )
    return None


_SYNTHETIC_MACS = 64 << 30  # of one pass over the images: 512 for ResNet-56; by default for networks up to 1 G MACs
_SYNTHETIC_IMAGES = (64, 512)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: what was read, and how it is to go."""

    analysis: Analysis
    settings: Settings
    progress: Progress
    start: float
    data: Data | None = None

    @property
    def decision(self) -> Decision:
        return Decision(self.analysis, self.settings, self.data, self.progress)

    def measure(self) -> MomentsSet | None:
        """Moments of all consumers: measured on the data, read from a file, or none."""
        settings, data = self.settings, self.data
        if settings.moments is not None:
            return load_moments(settings.moments, self.analysis.graph.sha256())
        if data is None:
            return None
        activations = isinstance(make_criterion(settings.criterion or "l2"), OfActivations)
        how = Calibration(seed=settings.seed, device=settings.device, activations=activations)
        of = "" if data.samples is None else f" of {data.samples}"
        labels = self.analysis.groups.labels
        found = calibrate(
            labels, data, how=how, progress=lambda done: self.progress(f"calibrating: {done}{of} samples")
        )
        if settings.save_moments is not None:
            found.save(settings.save_moments)
        return found

    def write(self, plan: Plan, moments: MomentsSet | None = None) -> Result:
        """Cut, prove, refit, replace the head, measure."""
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
            added = added_elements(proved, model)
        macs, params = plan.macs[1], plan.params[1] + added
        if settings.replace_head is not None:
            self.progress("replacing the head")
            with threadpool_limits(1):
                model, found = fit_head(
                    labels, model, self.data, Calibration(seed=settings.seed, device=settings.device)
                )
            macs, params = found.cost.macs(found.cost.units), found.cost.params(found.cost.units)
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
            macs=(plan.macs[0], macs),
            params=(plan.params[0], params),
            size=(file_bytes(analysis.graph.source), file_bytes(model)),
            latency=latency,
            data=self._described(),
            proof=proof.error,
            seconds=seconds,
            head=settings.replace_head,
        )
        return Result(model, plan, report, analysis.graph.external, analysis.graph.source)

    def _described(self) -> str | None:
        """What channels were chosen and refitted on."""
        if self.data is None:
            return None if self.settings.moments is None else "moments"
        synthetic = self.settings.calibration in (SYNTHETIC, SYNTHETIC_IF_IMAGES)
        broken = self.data.broken()
        but = f", {broken} of them unreadable and left out" if broken else ""
        return f"{self.data.samples or 'given'} {'synthetic images' if synthetic else 'samples'}{but}"

    def _refit(self, removed: np.ndarray, cut: Graph, moments: MomentsSet, kind: str) -> None:
        labels = self.analysis.groups.labels
        if kind != "sequential" or self.data is None:
            self.progress("refitting")
            refit_once(labels, removed, cut, moments, kind)
            return
        positions = max(_REFIT_POSITIONS, _REFIT_ROWS // (self.data.samples or _REFIT_ROWS))
        how = Calibration(positions=positions, seed=self.settings.seed, device=self.settings.device)
        refit_sequentially(
            labels,
            removed,
            cut,
            self.data,
            how,
            progress=lambda done, of: self.progress(f"refitting: {done} of {of} layers"),
        )


_REFIT_POSITIONS = 32  # an image: the fit itself wants more rows than the choice of channels (docs/methods.md)
_REFIT_ROWS = 16384  # at least, where there are few images


def apply(
    model: Source, plan: Plan | str | os.PathLike[str], *, progress: Progress = lambda stage: None, **settings: object
) -> Result:
    """Redo a plan, on its model or another checkpoint of the same graph, with proof and measurement."""
    chosen = make_settings(settings)
    start = time.perf_counter()
    loaded = plan if isinstance(plan, Plan) else Plan.load(plan)
    progress("reading the model")
    graph = load(model)
    check_opens(graph, chosen.device)
    analysis = replace(
        analyse(graph, device=chosen.device, seed=chosen.seed, inexact=chosen.inexact), name=_name(model, graph)
    )
    check_weights(analysis.groups)
    return _Run(analysis, chosen, progress, start).write(replace(loaded, model=analysis.name, reconstruct="none"))


def added_elements(before: onnx.ModelProto, after: onnx.ModelProto) -> int:
    """How many parameters a refit has added: biases of layers that had none."""
    names = {tensor.name for tensor in before.graph.initializer}
    return sum(math.prod(tensor.dims) for tensor in after.graph.initializer if tensor.name not in names)


def _rows(groups: ChannelGroups, plan: Plan) -> list[GroupRow]:
    gone = plan.removed
    return [GroupRow(g.name, g.units, g.units - len(gone.get(g.name, ())), g.pinned) for g in groups.groups]
