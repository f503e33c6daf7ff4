"""The proof of every run: the cut model equals the original in which the consumers of what went are silenced."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnx

from ...passes.channels.labels import LabelledGraph
from ...passes.channels.silence import silence
from ...passes.errors import ProofError, ReadError
from ...passes.graph.export import to_model
from ...passes.graph.model import Graph
from ...passes.graph.scratch import scratch_folder
from ...passes.graph.shapes import input_shapes
from ...passes.graph.spill import SPILL_BYTES, weight_bytes
from ...passes.rewrite.unsigned import with_unsigned_weights
from ..session import Device
from .compare import Proof, max_relative_error, own_error, runs_on
from .inner import Watched, differences, rounding, watched, wrong

TOLERANCE = 1e-4  # largest relative difference in float32; measured on all public models it stays below 1e-5
# What the original differs from itself by, times this, is rounding; a wrong index is far above. Then another input, on
# which it is not so large, decides: (seed, standard deviation).
_ROUNDING = 10
_LARGEST_ROUNDING = 0.1  # of half precision; inner tensors are compared as well
_OTHER_INPUTS = ((1, 0.1), (2, 1.0), (3, 0.1), (4, 1.0), (5, 0.1), (6, 1.0))
_REPORT = "nothing was written; this is a bug of onnx-prune: please report it with the graph (no weights are needed)"


def prove_cut(
    labelled: LabelledGraph,
    removed: np.ndarray,
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    device: Device = "auto",
) -> Proof:
    """Compare on random input, also of another batch size where that is free.

    removed: one bool a label; model: cut and not refitted; feeds: of one run. Raises ProofError where the two differ or
    the cut one does not run, ReadError where the original does not.
    """
    runs = [feeds, *_second_batch(labelled, feeds)]
    with _written(silence(labelled, removed)) as twin:
        proof, runs = _prove(labelled, model, twin, runs, device)
        return _prove_inner(watched(labelled, removed, [model, twin]), model, twin, runs, proof, device)


@contextmanager
def _written(graph: Graph) -> Generator[onnx.ModelProto]:
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
    runs: Sequence[Mapping[str, np.ndarray]],
    device: Device,
) -> tuple[Proof, Sequence[Mapping[str, np.ndarray]]]:
    """The proof by the outputs, and the inputs on which the original runs."""
    try:
        proof = max_relative_error(model, twin, runs, device=device)
    except ReadError as error:
        usable = [f for f in runs if runs_on(twin, f, device=device)]
        if not usable and not runs_on(labelled.graph.source, runs[0], device=device):
            raise ReadError(
                "ONNX Runtime does not run the model, so that nothing can be proved",
                where=error.what,
                fix="convert it to operators and an opset that this ONNX Runtime knows, or install a newer one",
            ) from error
        if len(usable) in (0, len(runs)):
            raise ProofError("the cut model does not run", where=error.what, fix=_REPORT) from error
        runs = usable
        proof = max_relative_error(model, twin, runs, device=device)
    if not proof.error <= TOLERANCE:
        proof = _without_rounding(model, twin, runs, device, proof)
    if not proof.error <= TOLERANCE and not _rounding_of_halves(proof, twin, runs, device):
        raise ProofError(
            f"the cut model differs from the original with silenced channels by {proof.error:.2g}",
            where=f"output '{proof.output}'",
            fix=_REPORT,
            error=proof.error,
        )
    return proof, runs


def _rounding_of_halves(
    proof: Proof, twin: onnx.ModelProto, runs: Sequence[Mapping[str, np.ndarray]], device: Device
) -> bool:
    """Whether the model computes in half precision, and differs by no more than rounding there makes of it."""
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    if not any(tensor.data_type in halves for tensor in twin.graph.initializer):
        return False
    return proof.error <= min(_LARGEST_ROUNDING, _ROUNDING * own_error(twin, runs, device=device))


def _prove_inner(
    tensors: Sequence[Watched],
    model: onnx.ModelProto,
    twin: onnx.ModelProto,
    runs: Sequence[Mapping[str, np.ndarray]],
    proof: Proof,
    device: Device,
) -> Proof:
    """Compare what flows inside, on further inputs too until all is seen and no difference is left unexplained."""
    plain = with_unsigned_weights(model)
    if plain is not model:
        model, twin = plain, with_unsigned_weights(twin)
    seen: set[str] = set()
    bad: dict[str, np.ndarray] = {}
    worst = 0.0
    for number, inputs in enumerate(itertools.chain([runs], _further(runs))):
        wanted = [t for t in tensors if t.name in bad or number == 0 or (t.kept and t.name not in seen)]
        if not wanted:
            break
        found = differences(model, twin, wanted, inputs, device)
        large = wrong(wanted, found, {})
        suspects = [t for t in wanted if t.name in large]
        noise = rounding(twin, suspects, inputs, device)
        now = wrong(suspects, found, noise)
        for name in [name for name in bad if name in found]:
            still = now.get(name, np.array(False))
            bad[name] = bad[name] & (still | ~found[name].varied) if bad[name].shape == still.shape else still
        bad |= {name: channels for name, channels in now.items() if name not in seen and name not in bad}
        bad = {name: channels for name, channels in bad.items() if channels.any()}
        worst = max([worst, *(float(d.relative().max()) for n, d in found.items() if n not in noise)])
        seen.update(name for name, difference in found.items() if difference.varied.any())
        if number == 0 and any(d.error.shape == () and np.isinf(d.error) for d in found.values()):
            break  # another shape: no other input decides
    _refuse(bad, tensors, seen)
    cut = [t.name for t in tensors if t.kept]
    return replace(proof, tensors=(len(seen.intersection(cut)), len(cut)), inner=worst)


def _refuse(bad: Mapping[str, np.ndarray], tensors: Sequence[Watched], seen: set[str]) -> None:
    if bad:
        name = next(t.name for t in tensors if t.name in bad)
        raise ProofError(
            f"the cut model differs from the original with silenced channels in {len(bad)} inner tensors",
            where=f"the first is '{name}', in {int(np.sum(bad[name]))} of its channels",
            fix=_REPORT,
        )
    if any(t.kept for t in tensors) and not seen:
        raise ProofError(
            "nothing shows whether the cut is right: no tensor holds finite numbers that vary on any input tried",
            where=f"{len(tensors)} tensors, '{tensors[0].name}' the first",
            fix="give calibration data on which the model computes something (--calibration)",
        )


def _further(runs: Sequence[Mapping[str, np.ndarray]]) -> Iterator[list[dict[str, np.ndarray]]]:
    """Other inputs of the same sizes: positive ones, small and large ones."""
    yield [{n: np.abs(a) if a.dtype.kind == "f" else a for n, a in feeds.items()} for feeds in runs]
    for seed, amplitude in ((1, 0.1), (2, 1.0), (3, 3.0), (4, 1.0)):
        yield [_redrawn(feeds, seed, amplitude) for feeds in runs]


def _without_rounding(
    model: onnx.ModelProto,
    twin: onnx.ModelProto,
    runs: Sequence[Mapping[str, np.ndarray]],
    device: Device,
    proof: Proof,
) -> Proof:
    """The proof again, where the arithmetic and not the cut may be what differs: see unsigned.py and _OTHER_INPUTS."""
    plain = with_unsigned_weights(model)
    if plain is not model:
        model, twin = plain, with_unsigned_weights(twin)
        proof = max_relative_error(model, twin, runs, device=device)
    for seed, amplitude in _OTHER_INPUTS:
        if proof.error <= TOLERANCE or not proof.error <= _ROUNDING * own_error(twin, runs, device=device):
            break
        runs = [_redrawn(feeds, seed, amplitude) for feeds in runs]
        proof = max_relative_error(model, twin, runs, device=device)
    return proof


def _redrawn(feeds: Mapping[str, np.ndarray], seed: int, amplitude: float) -> dict[str, np.ndarray]:
    """Other random floats of the same shapes; integers, which may be indices, stay."""
    rng = np.random.default_rng(seed)
    return {
        name: (amplitude * rng.standard_normal(array.shape)).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in feeds.items()
    }


def _second_batch(labelled: LabelledGraph, feeds: Mapping[str, np.ndarray]) -> list[Mapping[str, np.ndarray]]:
    """Where the batch is free, one more input of another batch size: nothing may be wired to the first one."""
    shapes = input_shapes(labelled.graph)
    if not shapes or any(not dims or isinstance(dims[0], int) for dims in shapes.values()):
        return []
    rng = np.random.default_rng(1)
    doubled = {}
    for name, array in feeds.items():
        fresh = rng.standard_normal(array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
        doubled[name] = np.concatenate([array, fresh])
    return [doubled]
