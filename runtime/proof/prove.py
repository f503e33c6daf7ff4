"""The proof of every run: the cut model equals the original in which the consumers of what went are silenced."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from ...passes.channels.groups import ChannelGroups
from ...passes.channels.labels import LabelledGraph
from ...passes.channels.silence import silence
from ...passes.errors import ProofError, ReadError
from ...passes.graph.export import to_model
from ...passes.graph.model import Graph
from ...passes.graph.scratch import scratch_folder
from ...passes.graph.spill import SPILL_BYTES, weight_bytes
from ...passes.rewrite.unsigned import with_unsigned_weights
from ..device import Device
from ..reduced import fitted
from ..trial import runs_on
from .compare import Proof, max_relative_error, own_error
from .inner import Feeds, Watched, differences, rounding, watched, wrong
from .other_inputs import further, other_size, redrawn, second_batch
from .reach import Reach, reach

TOLERANCE = 1e-4  # largest relative difference in float32; measured on all public models it stays below 1e-5
# What the original differs from itself by, times this, is rounding; a wrong index is far above. Then another input, on
# which it is not so large, decides: (seed, standard deviation).
_ROUNDING = 10
_FOR_BLANK = 1  # further inputs that are tried for single channels: what is zero on all of them may be dead
_LARGEST_ROUNDING = 0.1  # of half precision; inner tensors are compared as well
_OTHER_INPUTS = ((1, 0.1), (2, 1.0), (3, 0.1), (4, 1.0), (5, 0.1), (6, 1.0))
_REPORT = "nothing was written; this is a bug of onnx-prune: please report it with the graph (no weights are needed)"


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
        model, twin = fitted(model, feeds), fitted(whole, feeds)
        elsewhere = other_size(labelled.graph, twin, feeds, device)
        proof, runs = _prove(labelled, model, twin, [feeds, *second_batch(labelled.graph, feeds), *elsewhere], device)
        tensors = watched(labelled, removed, [model, twin], feeds)
        inside = _Inside(tensors, reach(groups, removed, tensors), device)
        return inside.prove(model, twin, runs, proof, more)


def prove_same(
    groups: ChannelGroups, model: onnx.ModelProto, reference: onnx.ModelProto, feeds: Feeds, device: Device = "auto"
) -> None:
    """Raise ProofError where a model that should be the reference itself, which runs on these feeds, is not."""
    nothing = np.zeros(groups.labelled.count, bool)
    model, reference = fitted(model, feeds), fitted(reference, feeds)
    proof, runs = _prove(groups.labelled, model, reference, [feeds], device)
    tensors = watched(groups.labelled, nothing, [model, reference], feeds)
    _Inside(tensors, reach(groups, nothing, tensors), device).prove(model, reference, runs, proof, ())


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
    first = proof.shown
    if not proof.error <= TOLERANCE:
        proof = _without_rounding(model, twin, runs, device, proof)
    if not proof.error <= TOLERANCE and not _rounding_of_halves(proof, twin, runs, device):
        raise ProofError(
            f"the cut model differs from the original with silenced channels by {proof.error:.2g}",
            where=f"output '{proof.output}'",
            fix=_REPORT,
            error=proof.error,
        )
    return replace(proof, shown=first), runs


def _rounding_of_halves(proof: Proof, twin: onnx.ModelProto, runs: Sequence[Feeds], device: Device) -> bool:
    """Whether the model computes in half precision, and differs by no more than rounding there makes of it."""
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    if not any(tensor.data_type in halves for tensor in twin.graph.initializer):
        return False
    return proof.error <= min(_LARGEST_ROUNDING, _ROUNDING * own_error(twin, runs, device=device))


@dataclass(slots=True)
class _Inside:
    """The comparison of what flows inside two models.

    reach: what has to be seen, and what has been
    bad: tensor -> channels whose difference nothing explains so far
    blank: tensor of few numbers -> the kept channels of which nothing was seen so far
    """

    tensors: Sequence[Watched]
    reach: Reach
    device: Device
    seen: set[str] = field(default_factory=set)
    bad: dict[str, np.ndarray] = field(default_factory=dict)
    blank: dict[str, np.ndarray] = field(default_factory=dict)
    worst: float = 0.0

    def prove(
        self, model: onnx.ModelProto, twin: onnx.ModelProto, runs: Sequence[Feeds], proof: Proof, more: Iterable[Feeds]
    ) -> Proof:
        """Compare, on further inputs too until all is seen and no difference is left unexplained."""
        plain = with_unsigned_weights(model)
        if plain is not model:
            model, twin = plain, with_unsigned_weights(twin)
        wanted: Sequence[Watched] = self.tensors
        first, elsewhere = _by_size(runs)
        if elsewhere:  # what is compared at some positions only has them at the size that it was labelled for
            self._compare(model, twin, [tensor for tensor in self.tensors if not tensor.steps], elsewhere)
        for number, inputs in enumerate(itertools.chain([first], further(first, twin, more))):
            if not wanted or not self._compare(model, twin, wanted, inputs):
                break
            missing = self.reach.missing()
            blank = {name for name, channels in self.blank.items() if channels.any() and number < _FOR_BLANK}
            wanted = [
                t
                for t in self.tensors
                if t.name in self.bad or t.name in missing | blank or (t.kept and t.name not in self.seen)
            ]
        self._refuse()
        cut = [t.name for t in self.tensors if t.kept and t.evidence]
        return replace(
            proof, tensors=(len(self.seen.intersection(cut)), len(cut)), inner=self.worst, unseen=self.reach.unseen()
        )

    def _compare(
        self, model: onnx.ModelProto, twin: onnx.ModelProto, wanted: Sequence[Watched], inputs: Sequence[Feeds]
    ) -> bool:
        """Count these inputs in; False where no other input can decide: a tensor has another shape."""
        found = differences(model, twin, wanted, inputs, self.device)
        large = wrong(wanted, found, {})
        suspects = [t for t in wanted if t.name in large]
        noise = rounding(twin, suspects, inputs, self.device)
        now = wrong(suspects, found, noise)
        for name in [name for name in self.bad if name in found]:
            before, still = self.bad[name], now.get(name, np.array(False))
            self.bad[name] = before & (still | ~found[name].varied) if before.shape == still.shape else still
        self.bad |= {name: channels for name, channels in now.items() if name not in self.seen | self.bad.keys()}
        self.bad = {name: channels for name, channels in self.bad.items() if channels.any()}
        self.worst = max([self.worst, *(float(d.relative().max()) for n, d in found.items() if n not in noise)])
        self.blank |= {
            t.name: self.blank.get(t.name, np.array(True)) & ~found[t.name].varied
            for t in wanted
            if t.few and t.name in found
        }
        self.seen.update(name for name, difference in found.items() if difference.varied.any())
        self.reach.add(wanted, found)
        return not any(d.error.shape == () and np.isinf(d.error) for d in found.values())

    def _refuse(self) -> None:
        if self.bad:
            name = next(t.name for t in self.tensors if t.name in self.bad)
            raise ProofError(
                f"the cut model differs from the original with silenced channels in {len(self.bad)} inner tensors",
                where=f"the first is '{name}', in {int(np.sum(self.bad[name]))} of its channels",
                fix=_REPORT,
            )


def _without_rounding(
    model: onnx.ModelProto,
    twin: onnx.ModelProto,
    runs: Sequence[Feeds],
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
        runs = [redrawn(feeds, seed, amplitude) for feeds in runs]
        proof = max_relative_error(model, twin, runs, device=device)
    return proof


def _by_size(runs: Sequence[Feeds]) -> tuple[list[Feeds], list[Feeds]]:
    """Those of the first one's size, whatever their batch, and the others."""
    size = {name: array.shape[1:] for name, array in runs[0].items()}
    same = [{name: array.shape[1:] for name, array in feeds.items()} == size for feeds in runs]
    return [f for f, is_same in zip(runs, same, strict=True) if is_same], [
        f for f, is_same in zip(runs, same, strict=True) if not is_same
    ]
