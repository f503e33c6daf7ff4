"""From a plan to a model: cut, prove, refit, replace the head, report."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet
from ..passes.channels.apply_removal import apply_removal
from ..passes.channels.groups import ChannelGroups
from ..passes.channels.vanish.take_out import settled_cut
from ..passes.graph.export import infer_shapes, to_model
from ..passes.graph.files import save_model
from ..passes.graph.spill import file_bytes
from ..passes.rewrite.place import offsets_of, without_idle_placers
from ..passes.rewrite.sample import without_idle_samplers
from ..passes.rewrite.simplify import simplified
from ..passes.selection.plans.plan import Plan
from ..passes.selection.plans.planned import recounted, removed_from_plan
from ..runtime.fit_head import fit_head
from ..runtime.latency.batched import timed_feeds
from ..runtime.measure.calibrate import Calibration
from ..runtime.measure.latency import Timing, compare, compare_anew, machine, ratio
from ..runtime.progress import is_first
from ..runtime.proof.compare import Proof, Shown
from ..runtime.proof.prove import prove_same
from ..runtime.proof.saved import check_saved, shown
from .proven import proven
from .refit import KEPT, Written, added_elements, distilled, judged, refitted
from .report import Curves, GroupRow, Report
from .run import Run

_DRAFTED = 256  # samples that a draft is refitted on, at least


@dataclass(frozen=True, slots=True)
class Result:
    """A pruned model with how it came about: the plan says what was removed, the report what it brought.

    external: whether its weights go into a file beside it
    original: what it was made from
    shown: what it computes, which the saved file must compute as well
    curves: what widths were chosen by
    epochs: of the fine-tuning, `training.loop.Epoch` each
    """

    model: onnx.ModelProto
    plan: Plan
    report: Report
    external: bool = False
    original: onnx.ModelProto | None = None
    shown: Shown | None = None
    curves: Curves = field(default_factory=Curves)
    epochs: tuple[object, ...] = ()

    def __repr__(self) -> str:
        return f"Result({self.report!r})"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model so that the file appears whole or not at all; its metadata say what cut it."""
        before = _properties(self.model)
        if self.plan.removed:
            helper.set_model_props(self.model, {**before, **self.provenance})
        try:
            return save_model(self.model, path, external=self.external, original=self.original, check=self._check)
        finally:
            helper.set_model_props(self.model, before)

    @property
    def provenance(self) -> dict[str, str]:
        """What goes into the model's metadata_props: tool, version, budget, and the digest of the plan."""
        return {
            "onnx_prune.version": version("onnx-prune"),
            "onnx_prune.budget": json.dumps(self.plan.budget.to_json(), sort_keys=True),
            "onnx_prune.plan_sha256": self.plan.digest,
        }

    def _check(self, file: Path) -> None:
        if self.shown is not None:
            check_saved(file, self.model, self.shown)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def _properties(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def write(run: Run, plan: Plan, moments: MomentsSet | None = None) -> Result:
    """Cut, prove, refit, replace the head, report. Raises ProofError where the cut model is not what it must be."""
    return timed(run, cut_model(run, plan, moments))


def draft(run: Run, plan: Plan, moments: MomentsSet | None) -> Result:
    """A model to measure, not to keep: neither proven nor timed, refitted on a quarter of the samples."""
    fewer = None if run.data is None else run.data.first(max(_DRAFTED, (run.data.samples or 0) // 4))
    return _assembled(replace(run, data=fewer), plan, moments, prove=False)


def cut_model(run: Run, plan: Plan, moments: MomentsSet | None = None) -> Result:
    """`write` without latency, which `timed` measures."""
    return _assembled(run, plan, moments, prove=True)


def _assembled(run: Run, plan: Plan, moments: MomentsSet | None, *, prove: bool) -> Result:
    removed = removed_from_plan(run.analysis.groups, plan)
    counted = recounted(plan, run.analysis.cost, removed)
    run.progress("cutting")
    cut = apply_removal(run.analysis.groups.labelled, removed)
    bare = Written(to_model(cut), counted.macs[1], counted.params[1])
    proof = proven(run, removed, bare.model) if prove else None
    bare = bare if proof is None else replace(bare, shown=proof.shown)
    fitted = refitted(run, removed, cut, bare, moments, counted.reconstruct)
    lean = _without_remains(run, removed, fitted)
    lean = distilled(run, lean, counted.reconstruct) if prove else lean
    if lean.refit is not None and not lean.refit.startswith(KEPT):
        counted = replace(counted, reconstruct="none")
    return _report(run, counted, _replace_head(run, lean), proof)


def _without_remains(run: Run, removed: np.ndarray, written: Written) -> Written:
    """The model with as little as can be of branches that went. Raises ProofError where it computes something else."""
    groups = run.analysis.groups
    if settled_cut(groups.labelled, removed) is None:
        return written
    graph = written.graph or apply_removal(groups.labelled, removed)
    lean = simplified(graph)
    if lean is graph:
        return written
    model = to_model(lean)
    prove_same(groups, model, written.model, run.analysis.feeds, run.settings.device)
    return replace(written, model=model, params=written.params + added_elements(written.model, model))


def _replace_head(run: Run, cut: Written) -> Written:
    """With another head, where one is asked for."""
    settings = run.settings
    if settings.replace_head is None:
        return cut
    run.progress("replacing the head")
    with threadpool_limits(1):
        how = Calibration(seed=settings.seed, device=settings.device)
        model, analysis = fit_head(run.analysis.groups.labelled, cut.model, run.data, how)
    cost = analysis.cost
    headed = Written(model, cost.macs(cost.units), cost.params(cost.units), cut.refit)
    return judged(run, headed, None)


def _without_idle(run: Run, model: onnx.ModelProto) -> onnx.ModelProto:
    if run.extra != "samplers":
        return model if run.extra is None else without_idle_placers(model)
    shapes = run.analysis.groups.labelled.facts.shapes
    return without_idle_samplers(model, {name: shape[1] for name, shape in shapes.items() if len(shape) > 1})


def _report(run: Run, plan: Plan, written: Written, proof: Proof | None) -> Result:
    """The model with the shapes of its tensors, and what it brought."""
    analysis = run.analysis
    model = infer_shapes(_without_idle(run, written.model))
    report = Report(
        model=analysis.name,
        groups=tuple(_rows(analysis.groups, plan)),
        macs=(plan.macs[0], written.macs),
        params=(plan.params[0], written.params + offsets_of(model)),
        size=(file_bytes(run.original), file_bytes(model)),
        latency=None,
        data=run.data_in_words,
        doubt=run.doubt,
        proof=math.nan if proof is None else proof.error,
        compared=None if proof is None else proof.tensors,
        inner=None if proof is None else proof.inner,
        seconds=time.perf_counter() - run.start,
        head=run.settings.replace_head,
        same_class=None if written.closeness is None else written.closeness.same_class,
        distance=None if written.closeness is None else written.closeness.distance,
        samples=None if written.closeness is None else written.closeness.samples,
        refit=written.refit,
        gone=tuple(group.name for group in plan.groups if group.units == len(group.removed)),
        inputs=analysis.sizes,
        proved_at=None if analysis.tried == analysis.sizes else analysis.tried,
        free=analysis.free,
    )
    if proof is not None and written.shown is None:
        written = replace(written, shown=shown(model, analysis.trial, run.settings.device))
    return Result(model, plan, report, analysis.graph.external, run.original, written.shown)


def timed(run: Run, result: Result) -> Result:
    """The result with the latency of both models, where that is wanted."""
    if not run.settings.measure or not is_first():
        return result
    run.progress("measuring latency")
    models = [run.original, result.model]
    feeds = timed_feeds(run.analysis, run.settings.latency_batch)
    measure = compare_anew if result.plan.budget.kind == "latency" else compare
    before, after = measure(models, feeds, device=run.settings.device, threads=run.settings.threads)
    report = replace(
        result.report,
        latency=(before.compared, after.compared),
        latency_ratio=ratio(before, after),
        measured_on=_measured_on(run, (before, after)),
    )
    return replace(result, report=report)


def _measured_on(run: Run, timings: tuple[Timing, Timing]) -> str:
    threads = "1 thread" if run.settings.threads == 1 else f"{run.settings.threads or 'all'} threads"
    batch = f", batch {run.settings.latency_batch}," if run.settings.latency_batch > 1 else ""
    clock = ", processor time" if timings[0].by_cpu else ""
    busy = "; the machine was busy" if any(timing.busy for timing in timings) else ""
    return f"{threads}{batch} of {machine()}{clock}{busy}"


def _rows(groups: ChannelGroups, plan: Plan) -> list[GroupRow]:
    gone = plan.removed
    return [GroupRow(g.name, g.units, g.units - len(gone.get(g.name, ())), g.pinned) for g in groups.groups]
