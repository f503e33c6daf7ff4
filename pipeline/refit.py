"""The refit of a cut model: layer by layer, then of the whole network, and none that brings it no nearer."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet
from ..passes.channels.apply_removal import apply_removal
from ..passes.errors import AccuracyError, ProofError, UsageError
from ..passes.graph.export import to_model
from ..passes.graph.model import Graph
from ..passes.rewrite.constant_maps import add_maps
from ..passes.rewrite.one_shot import mean_outputs, refit_once
from ..passes.rewrite.place import place_constants
from ..passes.rewrite.refit_scope import outside_refit
from ..passes.selection.refits import SEQUENTIAL, Blocks, blocks_of, distill_of, refit_kind
from ..runtime.data.inputs import model_inputs
from ..runtime.effort import make_effort
from ..runtime.measure.calibrate import Calibration
from ..runtime.measure.closeness import Closeness, closeness
from ..runtime.measure.constant_channels import ConstantChannels, constant_channels
from ..runtime.progress import counted
from ..runtime.proof.compare import Shown
from ..runtime.proof.other_inputs import redrawn
from ..runtime.proof.prove import prove_equal
from ..runtime.proof.saved import shown
from ..runtime.reconstruct import Refitted, refit_sequentially
from .run import Run

KEPT = "kept"
_JUDGED = (16, 64)  # samples, at least and at most
_UNSEEN = ", judged on the samples that it was fitted to: there are too few to hold any out"
_NAMED = 3  # layers whose reasons are told


@dataclass(frozen=True, slots=True)
class Written:
    """A model on its way, with what it costs.

    refit: "kept", what of it was not, or why nothing was; None where none was asked for; closeness: to the original
    graph: of which it is the model, where that was refitted
    """

    model: onnx.ModelProto
    macs: int
    params: int
    refit: str | None = None
    closeness: Closeness | None = None
    shown: Shown | None = None
    graph: Graph | None = None


def refitted(
    run: Run, removed: np.ndarray, cut: Graph, bare: Written, moments: MomentsSet | None, kind: str
) -> Written:
    """The model of the cut graph with its layers refitted in place where that brings it nearer to the original.

    bare: of the same graph, not refitted; moments: of the original. Biases that come with the refit are counted.
    """
    if kind == "none":
        return judged(run, bare, None)
    with threadpool_limits(1):
        zeros = _zero_filters(run, removed) if kind == "bias" else None
        means = {} if moments is None else mean_outputs(run.analysis.groups.labelled, removed, moments)
        cut = apply_removal(run.analysis.groups.labelled, removed, means) if means else cut
        placed = place_constants(run.analysis.groups.labelled, removed, cut)
        if refit_kind(kind) == SEQUENTIAL or blocks_of(kind) is not None:
            found = _on_data(run, removed, cut)
        else:
            assert moments is not None, "make_strategy has looked"
            run.progress("refitting")
            apart = None if zeros is None else zeros.labels
            found = Refitted(refit_once(run.analysis.groups.labelled, removed, cut, moments, kind, apart))
    if not found.layers and not means and not placed and not (zeros and zeros.maps):
        return replace(judged(run, bare, None), refit=f"nothing was refitted: {_why_nothing(run, removed, found)}")
    written = _written(run, bare, cut, _in_words(found))
    fitted = judged(run, bare, written if zeros is None else _with_constants(run, cut, written, zeros))
    chosen = blocks_of(kind)
    return fitted if chosen is None or fitted.graph is None else _jointly(run, removed, bare, fitted, chosen)


def _written(run: Run, bare: Written, cut: Graph, refit: str) -> Written:
    """The model of a refitted graph. Raises ProofError where more than a refit may change is different."""
    model = to_model(cut)
    different = list(outside_refit(run.analysis.groups.labelled, cut, bare.model, model))
    if different:
        raise ProofError(
            "the refitted model differs from the proved one in more than what was refitted",
            where=f"{run.analysis.name}: {', '.join(different[:3])}",
            fix="nothing was written; this is a bug of onnx-prune: please report it with the graph",
        )
    # What it computes now is what the file must compute: nothing later may change it unseen. A draft is not kept.
    computes = None if bare.shown is None else shown(model, run.analysis.trial, run.settings.device)
    params = bare.params + added_elements(bare.model, model)
    return Written(model, bare.macs, params, refit, shown=computes, graph=cut)


def _zero_filters(run: Run, removed: np.ndarray) -> ConstantChannels | None:
    """What removed filters of zeros give; None where there are none."""
    analysis = run.analysis
    feeds = [analysis.trial, redrawn(analysis.trial, 1, 1.0)]
    found = constant_channels(analysis.groups, removed, feeds, device=run.settings.device, free=bool(analysis.free))
    return found if found.labels.any() else None


def _with_constants(run: Run, cut: Graph, fitted: Written, zeros: ConstantChannels) -> Written:
    """With what removed filters of zeros gave; where only such were removed, proved to be the original itself."""
    labelled = run.analysis.groups.labelled
    taken = add_maps(cut, zeros.maps)
    model = to_model(cut)
    if zeros.all:
        run.progress("proving")
        prove_equal(labelled, model, run.analysis.graph.source, run.analysis.trial, run.settings.device)
    before = {tensor.name for tensor in fitted.model.graph.initializer}
    new = [t for t in model.graph.initializer if t.name not in before and t.data_type != onnx.TensorProto.INT64]
    macs = sum(each * math.prod(labelled.facts.shapes[output][2:]) for output, each in taken.items())
    params = sum(math.prod(tensor.dims) for tensor in new)
    return replace(fitted, model=model, macs=fitted.macs + macs, params=fitted.params + params, shown=None)


def added_elements(before: onnx.ModelProto, after: onnx.ModelProto) -> int:
    """How many more parameters the second has: biases of layers that had none, less what could be left out."""

    def elements(model: onnx.ModelProto) -> int:
        return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)

    return elements(after) - elements(before)


def judged(run: Run, bare: Written, fitted: Written | None) -> Written:
    """The refitted model where it is no farther from the original than the bare one, else that; with its closeness."""
    if run.judged_on is None and fitted is not None and run.settings.moments is not None:
        return replace(fitted, refit=f"{fitted.refit}, not compared: moments hold no samples")
    if run.judged_on is None:
        return fitted or bare
    run.progress("comparing with the original")
    candidates = [bare] if fitted is None else [bare, fitted]
    models = [candidate.model for candidate in candidates]
    found = closeness(run.original, models, run.judged_on.first(_judges(run)), device=run.settings.device)
    if fitted is None:
        return replace(bare, closeness=found[0])
    if found[1].distance <= found[0].distance:
        alone = "" if run.data is None or run.data.held_out is not None else _UNSEEN
        return replace(fitted, refit=f"{fitted.refit}{alone}", closeness=found[1])
    return replace(
        bare,
        refit=f"left out: with it the outputs are farther from the original's ({found[1].distance:.2g}) than without "
        f"({found[0].distance:.2g}), on {found[0].samples} samples",
        closeness=found[0],
    )


def _judges(run: Run) -> int:
    """Samples that models are compared on: a quarter as many as they were fitted to, within bounds."""
    samples = None if run.data is None else run.data.samples
    return _JUDGED[1] if samples is None else int(np.clip(samples // 4, *_JUDGED))


def distilled(run: Run, written: Written, word: str) -> Written:
    """The model with all weights trained towards the original's outputs, where `word` says so and it brings it nearer.

    That is decided by the loss on samples that nothing was fitted to.
    """
    chosen = distill_of(word)
    if chosen is None:
        return written
    from ..runtime.torch.training.distill import RECIPE, distill

    assert run.data is not None, "make_strategy has looked"
    assert run.judged_on is not None
    recipe = replace(RECIPE, epochs=chosen.epochs, rate=chosen.rate, seed=run.settings.seed)
    held_out, device = run.judged_on, run.settings.device
    try:
        found = distill(written.model, run.original, run.data, held_out, recipe, device=device, progress=run.progress)
    except (AccuracyError, UsageError) as error:
        return replace(written, refit=f"{written.refit}; not distilled: {error.what}")
    if not found.best:
        return replace(written, refit=f"{written.refit}; not distilled: no epoch was nearer to the original's outputs")
    how = f"distilled for {found.best} of {chosen.epochs} epochs"
    kept = written.refit is not None and written.refit.startswith(KEPT)
    refit = f"{written.refit}, and {how}" if kept else f"{KEPT}: {how}; before that {written.refit}"
    trained = replace(written, model=found.model, refit=refit, shown=None, graph=None)
    return judged(run, trained, None)


def _on_data(run: Run, removed: np.ndarray, cut: Graph) -> Refitted:
    assert run.data is not None
    effort = make_effort(run.settings.effort)
    return refit_sequentially(
        run.analysis.groups.labelled,
        removed,
        cut,
        run.data.first(effort.refit),
        Calibration(seed=run.settings.seed, device=run.settings.device),
        counted(run.progress, "refitting", "layers"),
        effort,
    )


def _jointly(run: Run, removed: np.ndarray, bare: Written, fitted: Written, chosen: Blocks) -> Written:
    """The refitted model with its layers fitted together as well, where that brings it nearer to the original."""
    from ..runtime.refit_jointly import refit_jointly
    from ..runtime.torch.joint.fit import Steps

    assert run.data is not None, "make_strategy has looked"
    assert fitted.graph is not None
    assert run.judged_on is not None
    cut = fitted.graph.copy()
    fixed = model_inputs(run.analysis.graph.source)[0].batch if run.data.fixed else None
    steps = Steps(chosen.layers, chosen.epochs, chosen.rate, seed=run.settings.seed, device=run.settings.device)
    found = refit_jointly(
        run.analysis.groups.labelled,
        removed,
        cut,
        run.data.first(make_effort(run.settings.effort).refit),
        steps if fixed is None else replace(steps, batch=fixed, fixed=True),
        counted(run.progress, "refitting layers together", "blocks"),
    )
    alone = f"{fitted.refit}, each layer alone"
    if not found.nearer:
        return replace(fitted, refit=f"{alone}: together no block came nearer")
    joint = _written(
        run, bare, cut, f"{fitted.refit}; {found.nearer} of {found.stretches} blocks nearer by a joint refit"
    )
    now = closeness(run.original, [joint.model], run.judged_on, device=run.settings.device)[0]
    if fitted.closeness is not None and now.distance > fitted.closeness.distance:
        return replace(fitted, refit=f"{alone}: with a joint refit the outputs are farther from the original's")
    return replace(joint, closeness=now)


def _in_words(found: Refitted) -> str:
    """How much of the refit there is: all of it, or which layers have none and why."""
    if not found.left:
        return KEPT
    named = [f"{name} ({why})" for name, why in list(found.left.items())[:_NAMED]]
    more = f" and {len(found.left) - _NAMED} more" if len(found.left) > _NAMED else ""
    of = len(found.left) + found.layers
    stay = "which stays as it was" if len(found.left) == 1 else "which stay as they were"
    return f"{KEPT} except in {len(found.left)} of {of} layers, {stay} cut: {', '.join(named)}{more}"


def _why_nothing(run: Run, removed: np.ndarray, found: Refitted) -> str:
    if found.left:
        counts = Counter(found.left.values())
        return "; ".join(f"{why} ({count} layer{'s' * (count > 1)})" for why, count in counts.items())
    labelled = run.analysis.groups.labelled
    nodes = labelled.graph.gs.nodes
    read = {nodes[c.node].op for c in labelled.consumers if removed[c.labels[c.labels >= 0]].any()}
    if not read:
        return "no layer that can be refitted reads what was cut"
    kinds = ", ".join(sorted(read))
    return f"the weights that read what was cut ({kinds}) are integers, in groups, or made by other nodes"
