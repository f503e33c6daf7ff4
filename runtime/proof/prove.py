"""The proof of every run: the cut model equals the original in which the consumers of what went are silenced."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnx

from ...passes.channels.groups import ChannelGroups
from ...passes.channels.labels import LabelledGraph
from ...passes.channels.silence import silence
from ...passes.errors import BoundError, ProofError, ReadError
from ...passes.graph.export import to_model
from ...passes.graph.model import Graph
from ...passes.graph.scratch import scratch_folder
from ...passes.graph.spill import SPILL_BYTES, weight_bytes
from ...passes.rewrite.arithmetic.calm import calm
from ...passes.rewrite.arithmetic.seeded import seeded
from ..device import Device
from ..reduced import fitted
from ..trial import runs_on
from .compare import Proof, in_halves, max_relative_error, own_error
from .inner import Feeds, watched
from .inside import REPORT, Inside
from .other_inputs import other_size, redrawn, second_batch
from .reach import reach

TOLERANCE = 1e-4  # largest relative difference in float32; measured on all public models it stays below 1e-5
# What the original differs from itself by, times this, is rounding; a wrong index is far above. Then another input, on
# which it is not so large, decides: (seed, standard deviation).
_ROUNDING = 10
_LARGEST_ROUNDING = 0.1  # of half precision; inner tensors are compared as well
_KNOWN = "convert it to operators, an opset and types (float32) that this ONNX Runtime knows, or install a newer one"
_RUNS = "run it in ONNX Runtime as it is; give sizes on which it runs (--size-of), or an example input (--calibration)"
_OTHER_INPUTS = ((1, 0.1), (2, 1.0), (3, 0.1), (4, 1.0), (5, 0.1), (6, 1.0))


def prove_cut(
    groups: ChannelGroups,
    removed: np.ndarray,
    model: onnx.ModelProto,
    feeds: Feeds,
    device: Device = "auto",
    more: Iterable[Feeds] = (),
) -> Proof:
    """Compare on random input, also of another batch size where that is free.

    removed: one bool a label; model: cut and not refitted; feeds: of one run; more: further input, such as calibration
    data, asked for where that does not show all. Raises ProofError where the two differ or the cut one does not run,
    ReadError where the original does not. Groups that nothing has shown are named in the proof: trust no cut of them.
    """
    labelled = groups.labelled
    with written(silence(labelled, removed)) as whole:
        model, twin = _comparable(model, feeds), _comparable(whole, feeds)
        elsewhere = other_size(labelled.graph, twin, feeds, device)
        proof, runs = _prove(labelled, model, twin, [feeds, *second_batch(labelled.graph, feeds), *elsewhere], device)
        model, twin = calm(model), calm(twin)
        tensors = watched(labelled, removed, [model, twin], feeds)
        inside = Inside(tensors, reach(groups, removed, tensors), device)
        return inside.prove(model, twin, runs, proof, more)


def prove_same(
    groups: ChannelGroups, model: onnx.ModelProto, reference: onnx.ModelProto, feeds: Feeds, device: Device = "auto"
) -> None:
    """Raise ProofError where a model that should be the reference itself, which runs on these feeds, is not."""
    nothing = np.zeros(groups.labelled.count, bool)
    model, reference = _comparable(model, feeds), _comparable(reference, feeds)
    proof, runs = _prove(groups.labelled, model, reference, [feeds], device)
    model, reference = calm(model), calm(reference)
    tensors = watched(groups.labelled, nothing, [model, reference], feeds)
    Inside(tensors, reach(groups, nothing, tensors), device).prove(model, reference, runs, proof, ())


def prove_equal(
    labelled: LabelledGraph, model: onnx.ModelProto, reference: onnx.ModelProto, feeds: Feeds, device: Device = "auto"
) -> Proof:
    """Compare a model with one that it should equal, channels inside aside. Raises ProofError where they differ."""
    model, reference = _comparable(model, feeds), _comparable(reference, feeds)
    runs = [feeds, *second_batch(labelled.graph, feeds), *other_size(labelled.graph, reference, feeds, device)]
    return _prove(labelled, model, reference, runs, device)[0]


def _comparable(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """The model for inputs of these sizes; what it draws at random is the same in every run."""
    return seeded(fitted(model, feeds))


@contextmanager
def written(graph: Graph) -> Generator[onnx.ModelProto]:
    """The graph as a model; many weights are in a file while they are needed."""
    if weight_bytes(graph.source, mapped=True) <= SPILL_BYTES:
        yield to_model(graph)
        return
    with scratch_folder() as folder:
        yield to_model(graph, folder)


def _prove(
    labelled: LabelledGraph,
    model: onnx.ModelProto,
    twin: onnx.ModelProto,
    runs: Sequence[Feeds],
    device: Device,
) -> tuple[Proof, Sequence[Feeds]]:
    """The proof by the outputs, and the inputs on which the original runs."""
    try:
        proof = max_relative_error(model, twin, runs, device=device)
    except ReadError as error:
        if isinstance(error, BoundError) and error.values.get("shapes") in (None, _shapes(runs[0])):
            raise
        usable = [f for f in runs if runs_on(twin, f, device=device)]
        if not usable and not runs_on(labelled.graph.source, runs[0], device=device):
            raise ReadError(
                "ONNX Runtime does not run the model, so that nothing can be proved",
                where=error.what,
                fix=_KNOWN if "cannot open" in error.what else _RUNS,
            ) from error
        if len(usable) in (0, len(runs)):
            raise ProofError("the cut model does not run", where=error.what, fix=REPORT) from error
        runs = usable
        proof = max_relative_error(model, twin, runs, device=device)
    first = proof.shown
    if not proof.error <= TOLERANCE:
        proof = _without_rounding(model, twin, runs, device, proof)
    if not proof.error <= TOLERANCE and not _rounding_of_halves(proof, twin, runs, device):
        raise ProofError(
            f"the cut model differs from the original with silenced channels by {proof.error:.2g}",
            where=f"output '{proof.output}'",
            fix=REPORT,
            error=proof.error,
        )
    return replace(proof, shown=first), runs


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feeds.items()}


def _rounding_of_halves(proof: Proof, twin: onnx.ModelProto, runs: Sequence[Feeds], device: Device) -> bool:
    """Whether the model computes in half precision, and differs by no more than rounding there makes of it."""
    if not in_halves(twin):
        return False
    return proof.error <= min(_LARGEST_ROUNDING, _ROUNDING * own_error(twin, runs, device=device))


def _without_rounding(
    model: onnx.ModelProto,
    twin: onnx.ModelProto,
    runs: Sequence[Feeds],
    device: Device,
    proof: Proof,
) -> Proof:
    """The proof again, where the arithmetic and not the cut may be what differs.

    See `passes/rewrite/arithmetic` and _OTHER_INPUTS.
    """
    plain = calm(model)
    if plain is not model:
        model, twin = plain, calm(twin)
        proof = max_relative_error(model, twin, runs, device=device)
    for seed, amplitude in _OTHER_INPUTS:
        if proof.error <= TOLERANCE or not proof.error <= _ROUNDING * own_error(twin, runs, device=device):
            break
        runs = [redrawn(feeds, seed, amplitude) for feeds in runs]
        proof = max_relative_error(model, twin, runs, device=device)
    return proof
