"""Every tensor that the cut model and its twin both hold: the kept channels, each against its own scale.

Outputs alone may be blind: an index, a threshold, a saturated or NaN output shows no error. What is compared here is
what flows between the nodes. A tensor counts as seen where some kept channel holds finite numbers that vary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...passes.channels.constants import kept
from ...passes.channels.labels import LabelledGraph
from ...passes.graph.bodies import captured_names
from ..device import Device
from ..session import open_session
from .difference import Difference, joined, unlike
from .rounded import moved, rounded

Array = np.ndarray
Feeds = Mapping[str, Array]

# Largest difference, relative to the channel's largest number, that is not looked into: about a hundred rounding steps.
_CALM: dict[int, float] = {
    TensorProto.FLOAT: 1e-5,
    TensorProto.DOUBLE: 1e-10,
    TensorProto.FLOAT16: 2e-2,
    TensorProto.BFLOAT16: 1e-1,
}
# What a channel's numbers have to be apart, relative to the largest, so that it is not their rounding alone.
_LEAST = {kind: calm / 10 for kind, calm in _CALM.items()}
_OF_SPREAD = 1e-3  # largest difference, relative to how far the channel's numbers are apart, that is not looked into
# Quantised numbers: one step may be rounding.
_STEP = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32})
_ROUNDING = 10  # times what rounding alone does to the channel is rounding; a wrong index is far above
_STEPS = 4  # rounding steps, at most, that an input is moved by
# Of a tensor that are compared; of larger ones every so manieth position is. The first that serves.
_ELEMENTS = (1 << 16, 1 << 15, 1 << 14)
_RUNS = 4  # the results of a few inputs, and of one more, are held at once
_BYTES = 1 << 30  # of tensors that are held at once; each part takes a session and a run of its own
_FEW = 64  # numbers of a channel: a Relu gives zeros for as many by chance
_SIZES = frozenset({"Shape", "Size"})  # operators that read no numbers
_PREFIX = "onnx_prune.inner."


@dataclass(frozen=True, slots=True)
class Watched:
    """A tensor to compare.

    kind: its element type
    kept: one bool an index of each axis that lost some
    channels: the axes with labels
    steps: positions of other axes that are compared, where not all are
    bytes: of what is compared
    evidence: whether finite numbers in it that vary show that a cut is right; integers that may be indices do not
    rank: how many axes it has at the size that it was labelled for
    numbers: of one channel
    constant: whether it is computed from weights alone
    """

    name: str
    kind: int
    kept: Mapping[int, Array]
    channels: tuple[int, ...]
    steps: Mapping[int, Array]
    bytes: int
    evidence: bool
    rank: int
    numbers: int
    constant: bool = False

    @property
    def shown(self) -> str:
        return f"{_PREFIX}{self.name}" if self.steps else self.name

    @property
    def few(self) -> bool:
        """Whether a channel that is the same everywhere may be another one on other input: it holds few numbers."""
        return self.evidence and self.numbers < _FEW


def watched(labelled: LabelledGraph, removed: Array, models: Sequence[onnx.ModelProto], feeds: Feeds) -> list[Watched]:
    """Tensors of floats and of quantised numbers that all models hold.

    Less those computed from sizes, which a cut changes until they are used. Of graphs of thousands of tensors fewer
    positions are compared, so that a run shows all of them at once: each part of them takes runs of its own.
    """
    found: list[Watched] = []
    for elements in _ELEMENTS:
        found = _watched(labelled, removed, models, feeds, elements)
        if sum(tensor.bytes for tensor in found) * _RUNS <= _BYTES:
            break
    return found


def _watched(
    labelled: LabelledGraph, removed: Array, models: Sequence[onnx.ModelProto], feeds: Feeds, elements: int
) -> list[Watched]:
    held = set.intersection(*({o for node in m.graph.node for o in node.output} for m in models))
    share = _share(labelled, feeds)
    by_input = _computed_from_inputs(labelled)
    quantised = {o for node in models[0].graph.node if _is_quantised(node) for o in node.output}
    found = []
    for name, axes in labelled.axes.items():
        kind = labelled.facts.dtypes.get(name) or TensorProto.FLOAT  # unknown of operators that ONNX does not know
        if kind in _CALM.keys() | _STEP and name in held and axes and not labelled.kinds.get(name, np.zeros(1)).any():
            channels = tuple(i for i, a in enumerate(axes) if (a >= 0).any())
            steps, count = _steps([len(a) for a in axes], channels, elements) if share == 1 else ({}, 0)
            count = count or int(share * np.prod([float(len(a)) for a in axes]))
            left = {i: kept(a, removed) for i, a in enumerate(axes)}
            cut = {i: stays for i, stays in left.items() if not stays.all()}
            evidence = kind in _CALM or name in quantised
            numbers = count // max(int(np.prod([len(axes[i]) for i in channels])), 1)
            size, constant = 4 * count, name not in by_input
            found.append(Watched(name, kind, cut, channels, steps, size, evidence, len(axes), numbers, constant))
    return found


def _computed_from_inputs(labelled: LabelledGraph) -> set[str]:
    """Names of tensors whose numbers are computed from those of the inputs, not from weights and sizes alone."""
    found = {value.name for value in labelled.graph.gs.inputs}
    for node in labelled.graph.gs.nodes:
        if node.op not in _SIZES and not found.isdisjoint({*(t.name for t in node.inputs), *captured_names(node)}):
            found.update(t.name for t in node.outputs)
    return found


def _share(labelled: LabelledGraph, feeds: Feeds) -> float:
    """How much smaller the inputs are than those that the graph was labelled for: see reduced.py."""
    sizes = [(array.shape, labelled.facts.shapes.get(name, array.shape)) for name, array in feeds.items()]
    return min((np.prod(now, dtype=float) / max(np.prod(then, dtype=float), 1) for now, then in sizes), default=1.0)


def _is_quantised(node: onnx.NodeProto) -> bool:
    """Whether the integers that the node makes are rounded sums of products, or rounded floats."""
    return any(word in node.op_type for word in ("Integer", "QLinear", "QGemm", "QuantizeLinear"))


def _steps(shape: list[int], channels: Sequence[int], elements: int) -> tuple[dict[int, Array], int]:
    """Positions along axes without channels that leave so few elements, an odd step apart; how many those are."""
    steps: dict[int, Array] = {}
    left = list(shape)
    for axis in sorted(set(range(len(shape))) - set(channels), key=lambda i: -shape[i]):
        count = int(np.prod(left))
        if count > elements and shape[axis] > 4:
            steps[axis] = np.arange(0, shape[axis], min(-(-count // elements) | 1, shape[axis] // 2 | 1))
            left[axis] = len(steps[axis])
    return steps, int(np.prod(left))


def differences(
    model: onnx.ModelProto, twin: onnx.ModelProto, tensors: Sequence[Watched], runs: Sequence[Feeds], device: Device
) -> dict[str, Difference]:
    """How far the kept channels of the twin are from the cut model's. Memory: a bounded part of the tensors at once."""
    found: dict[str, Difference] = {}
    for part in _parts(tensors, len(runs)):
        references = list(_shown(twin, part, runs, device))
        for values, reference in zip(_shown(model, part, runs, device), references, strict=True):
            for tensor in part:
                if reference[tensor.shown].ndim == tensor.rank:  # a Squeeze without axes gives another one for a batch
                    _add(found, tensor, values[tensor.shown], _kept(tensor, reference[tensor.shown]))
    return found


@dataclass(slots=True)
class Rounding:
    """What rounding errors in inputs, weights and activations do to each kept channel of the twin.

    The twin is run once for all draws, where what is asked for fits into one part; that part is held.
    """

    twin: onnx.ModelProto
    runs: Sequence[Feeds]
    device: Device
    _held: list[dict[str, Array]] | None = None

    def drawn(self, tensors: Sequence[Watched], seed: int) -> dict[str, Array]:
        """The largest difference that one draw of errors makes, by tensor, one number a kept channel."""
        found: dict[str, Difference] = {}
        parts = list(_parts(tensors, len(self.runs)))
        for part in parts:
            references = self._references(part, alone=len(parts) == 1)
            rng = np.random.default_rng(seed)
            beside = [{name: moved(array, rng, _STEPS) for name, array in feeds.items()} for feeds in self.runs]
            shown = _shown(rounded(self.twin, rng), part, beside, self.device)
            for values, reference in zip(shown, references, strict=True):
                for t in (t for t in part if reference[t.shown].ndim == t.rank):
                    _add(found, t, _kept(t, values[t.shown]), _kept(t, reference[t.shown]))
        return {name: np.where(np.isfinite(d.error), d.error, 0.0) for name, d in found.items()}

    def _references(self, part: list[Watched], *, alone: bool) -> list[dict[str, Array]]:
        """What the twin makes without them; later draws ask for no more than the first one."""
        if self._held is not None and all(tensor.shown in self._held[0] for tensor in part):
            return self._held
        references = list(_shown(self.twin, part, self.runs, self.device))
        if alone:
            self._held = references
        return references


def wrong(
    tensors: Sequence[Watched],
    found: Mapping[str, Difference],
    noise: Mapping[str, Array],
) -> dict[str, Array]:
    """Name -> the channels, one bool each, that differ by more than rounding; tensors without any are left out."""
    result = {}
    for tensor in tensors:
        if tensor.name in found:
            far = found[tensor.name]
            bad = far.error > 1 if tensor.kind in _STEP else far.relative() > _CALM[tensor.kind]
            if tensor.kind in _CALM:
                small = np.maximum(_OF_SPREAD * far.spread, _LEAST[tensor.kind] * far.scale)
                bad = bad | (far.varied & (far.error > small))
            if tensor.name in noise:
                bad &= found[tensor.name].error > _ROUNDING * noise[tensor.name]
            if bad.any():
                result[tensor.name] = bad
    return result


def _parts(tensors: Sequence[Watched], runs: int) -> Iterator[list[Watched]]:
    part: list[Watched] = []
    size = 0
    for tensor in tensors:
        if part and size + tensor.bytes * (runs + 1) > _BYTES:
            yield part
            part, size = [], 0
        part.append(tensor)
        size += tensor.bytes * (runs + 1)
    if part:
        yield part


def _shown(
    model: onnx.ModelProto, tensors: Sequence[Watched], runs: Sequence[Feeds], device: Device
) -> Iterator[dict[str, Array]]:
    own = {value.name for value in model.graph.output}
    names = [tensor.shown for tensor in tensors]
    graph = onnx.GraphProto()
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
    for tensor in tensors:
        if tensor.steps:
            _take_steps(graph, tensor)
    session = open_session(model, device=device, optimise=False, additions=onnx.ModelProto(graph=graph))
    for feeds in runs:
        yield {name: _single(array) for name, array in session.run(feeds, names).items()}


def _take_steps(graph: onnx.GraphProto, tensor: Watched) -> None:
    """Gather, which every opset has, of those positions."""
    data = tensor.name
    for number, (axis, positions) in enumerate(tensor.steps.items(), 1):
        shown = tensor.shown if number == len(tensor.steps) else f"{tensor.shown}.{axis}"
        graph.initializer.append(numpy_helper.from_array(positions, f"{shown}.positions"))
        graph.node.append(helper.make_node("Gather", [data, f"{shown}.positions"], [shown], axis=axis))
        data = shown


def _single(array: Array) -> Array:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _kept(tensor: Watched, array: Array) -> Array:
    for axis, stays in tensor.kept.items():
        array = np.compress(stays, array, axis) if array.shape[axis] == len(stays) else array
    return array


def _add(found: dict[str, Difference], tensor: Watched, a: Array, b: Array) -> None:
    """Count one run in."""
    if not a.size and a.shape == b.shape:
        return
    difference = joined(found.get(tensor.name), unlike(a, b, tensor.channels))
    difference.least, difference.constant = _LEAST.get(tensor.kind, 0.0), tensor.constant
    found[tensor.name] = difference
