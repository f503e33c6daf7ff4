"""How far behind a consumer its output is still there, shifted and scaled channel by channel, and what is added to it.

A consumer y = W u + b may go through BatchNormalization, products and sums with constants, residual sums, and nodes
that change nothing; at the end stands z = scale * y + shift + the sum of what other branches add. A refit that is to
keep z fits W and b there, so that an export with its BatchNormalizations folded and one without have the same targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..algebra.layer.activation_functions import ActivationFunction
from ..graph.bodies import captured_names
from ..graph.model import Graph, constant_values
from ..graph.values import FLOATS, LIMIT, fold
from .activation_functions import activation_behind, quantised_range

# What makes a scale or a shift of stored values, and no more numbers than it reads or broadcasts.
_MOVING = ("Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Flatten", "Cast", "Slice", "Split")
_COMPUTING = ("Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Abs", "Min", "Max")
_SMALL = frozenset([*_MOVING, *_COMPUTING])
Array = np.ndarray
Step = Callable[["_Walk", gs.Node], bool]


@dataclass(frozen=True, slots=True, eq=False)
class AffinePath:
    """z = scale * y + shift + sum of factor * summand, with y the output of a consumer, channel by channel.

    tensor: z's name
    scale, shift: (n,) float64
    summands: other tensors of z's shape and their factors, (n,) float64
    activation: what alone reads z, if it is one
    """

    tensor: str
    scale: Array
    shift: Array
    summands: tuple[tuple[str, Array], ...] = ()
    activation: ActivationFunction | None = None


def own_output(name: str, size: int) -> AffinePath:
    """The path that ends where it begins."""
    return AffinePath(name, np.ones(size), np.zeros(size))


class AffinePaths:
    """The paths of consumers of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._tensors = graph.gs.tensors()
        kept = {t.name for t in graph.gs.outputs}
        self._ends = kept.union(*(captured_names(node) for node in graph.gs.nodes))  # read by others than nodes here
        self._fixed = _fixed(graph)

    def __call__(
        self, name: str, shape: tuple[int, int, int], may_add: Callable[[str], bool] = lambda other: False
    ) -> AffinePath:
        """The path of the consumer that makes `name`.

        shape: the rank of its output, the axis of the channels, and how many there are; may_add: whether another
        tensor that is added to it is known and of the same shape; by default the path ends in front of residual sums.
        """
        walk = _Walk(
            self._tensors[name], *shape, lambda other: other not in self._fixed and may_add(other), self.stored
        )
        while walk.tensor.name not in self._ends and len(walk.tensor.outputs) == 1:
            node = walk.tensor.outputs[0]
            step = _STEPS.get(node.op)
            if step is None or node.domain not in (None, "", "ai.onnx") or not step(walk, node):
                break
        ends = walk.tensor.name in self._ends
        activation = None if ends else activation_behind(walk.tensor, walk.number_a_channel)
        return AffinePath(walk.tensor.name, walk.scale, walk.shift, tuple(walk.summands), activation)

    def stored(self, tensor: gs.Tensor) -> Array | None:
        """The values of a constant, or of what nodes make of constants alone."""
        found = self._fixed.get(tensor.name)
        return constant_values(tensor) if found is None else found


class _Walk:
    """The place that a path has come to."""

    def __init__(
        self,
        tensor: gs.Tensor,
        rank: int,
        axis: int,
        size: int,
        may_add: Callable[[str], bool],
        stored: Callable[[gs.Tensor], Array | None],
    ) -> None:
        self.tensor, self.may_add, self.stored = tensor, may_add, stored
        self._rank, self._axis, self._size = rank, axis % rank, size
        self.scale, self.shift = np.ones(size), np.zeros(size)
        self.summands: list[tuple[str, Array]] = []

    def vector(self, values: Array) -> Array | None:
        """A constant that broadcasts to z as one number a channel, (n,) float64."""
        if values.size == 1 and values.ndim <= self._rank:
            return np.full(self._size, float(values.reshape(-1)[0]))
        axis = self._axis - (self._rank - values.ndim)
        if values.ndim > self._rank or axis < 0 or values.shape[axis] != values.size or values.size != self._size:
            return None
        return values.reshape(-1).astype(np.float64)

    def number_a_channel(self, tensor: gs.Tensor) -> Array | None:
        """The same of a tensor; None as well where it is no constant."""
        values = self.stored(tensor)
        return None if values is None else self.vector(values)

    def at_channels(self, axis: int) -> bool:
        """Whether this axis holds the channels."""
        return axis % self._rank == self._axis

    def through(self, node: gs.Node, scale: Array | float = 1.0, shift: Array | float = 0.0) -> bool:
        """Go behind a node that computes scale * z + shift."""
        self.scale, self.shift = self.scale * scale, self.shift * scale + shift
        self.summands = [(name, factor * scale) for name, factor in self.summands]
        self.tensor = node.outputs[0]
        return True


def _as_it_is(walk: _Walk, node: gs.Node) -> bool:
    return walk.through(node)


def _dropout(walk: _Walk, node: gs.Node) -> bool:
    trains = constant_values(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros((), bool)
    return trains is not None and not trains.any() and walk.through(node)


def _cast(walk: _Walk, node: gs.Node) -> bool:
    to = node.attrs.get("to")
    return (to in FLOATS if isinstance(to, int) else np.dtype(to).kind == "f") and walk.through(node)


def _batch_norm(walk: _Walk, node: gs.Node) -> bool:
    values = [walk.stored(t) for t in node.inputs[1:5]]
    if any(v is None for v in values) or node.attrs.get("training_mode") or len(node.outputs) > 1:
        return False
    if not walk.at_channels(1):
        return False
    scale, bias, mean, var = (np.asarray(v, np.float64) for v in values)
    scale = scale / np.sqrt(var + float(node.attrs.get("epsilon", 1e-5)))
    return scale.shape == walk.scale.shape and walk.through(node, scale, bias - mean * scale)


def _operand(walk: _Walk, node: gs.Node) -> tuple[int, gs.Tensor]:
    """Which input of a binary node the walk came in by, and the other one."""
    first = node.inputs[0] is walk.tensor
    return (0, node.inputs[1]) if first else (1, node.inputs[0])


def _product(walk: _Walk, node: gs.Node) -> bool:
    at, other = _operand(walk, node)
    factor = walk.number_a_channel(other)
    if factor is None or (node.op == "Div" and (at == 1 or not factor.all())):
        return False
    return walk.through(node, factor if node.op == "Mul" else 1 / factor)


def _fixed(graph: Graph) -> dict[str, Array | None]:
    """What nodes make of stored values alone: the same for all samples, of which it may have one.

    With its values where they are few and can be computed here.
    """
    fixed: dict[str, Array | None] = {}
    for node in graph.gs.nodes:
        if node.inputs and all(isinstance(t, gs.Constant) or t.name in fixed or not t.name for t in node.inputs):
            made = _computed(node, fixed)
            fixed.update((t.name, made[n] if n < len(made) else None) for n, t in enumerate(node.outputs))
    return fixed


def _computed(node: gs.Node, fixed: Mapping[str, Array | None]) -> tuple[Array, ...]:
    """The outputs of a node on stored values; none where it is not known how, or they are many."""
    if node.op not in _SMALL or node.domain not in (None, "", "ai.onnx"):
        return ()
    args: list[Array | None] = []
    for tensor in node.inputs:
        large = isinstance(tensor, gs.Constant) and math.prod(tensor.shape or ()) > LIMIT
        values = None if large else fixed.get(tensor.name)
        values = constant_values(tensor) if values is None and not large else values
        if tensor.name and (values is None or values.size > LIMIT):
            return ()
        args.append(values)
    return (fold(node.op, node.attrs, args) or ()) if _broadcast_size(args) <= LIMIT else ()


def _broadcast_size(args: Sequence[Array | None]) -> int:
    """Elements of a result of elementwise arithmetic, at most."""
    shapes = [arg.shape for arg in args if arg is not None]
    rank = max(map(len, shapes), default=0)
    return math.prod(max((s[axis] for s in shapes if len(s) >= -axis), default=1) for axis in range(-rank, 0))


def _sum(walk: _Walk, node: gs.Node) -> bool:
    """Add, Sub and Sum: of constants one a channel, of other tensors those that may be added."""
    others = [t for t in node.inputs if t is not walk.tensor]
    if len(others) != len(node.inputs) - 1:
        return False  # it is added to itself
    minus = node.op == "Sub"
    own, sign = (-1.0, 1.0) if minus and node.inputs[1] is walk.tensor else (1.0, -1.0 if minus else 1.0)
    shift = np.zeros(len(walk.shift))
    summands = []
    for other in others:
        vector = walk.number_a_channel(other)
        if vector is not None:
            shift = shift + sign * vector
        elif walk.stored(other) is None and walk.may_add(other.name):
            summands.append((other.name, np.full(len(shift), sign)))
        else:
            return False
    walk.through(node, own, shift)
    walk.summands += summands
    return True


def _quantised(walk: _Walk, node: gs.Node) -> bool:
    """QuantizeLinear and the DequantizeLinear that undoes it: z but for its rounding.

    Not where it takes one sign alone, as quantisers leave a ReLU: there it is the activation.
    """
    readers, bounds = node.outputs[0].outputs, quantised_range(node)
    if len(readers) != 1 or readers[0].op != "DequantizeLinear" or (bounds is not None and 0 in bounds):
        return False
    steps = [[t.name for t in n.inputs[1:]] for n in (node, readers[0])]
    return steps[0] == steps[1] and walk.through(readers[0])


def _negative(walk: _Walk, node: gs.Node) -> bool:
    return walk.through(node, -1.0)


_STEPS: Mapping[str, Step] = {
    "Identity": _as_it_is,
    "Dropout": _dropout,
    "Neg": _negative,
    "Cast": _cast,
    "BatchNormalization": _batch_norm,
    "Mul": _product,
    "Div": _product,
    "Add": _sum,
    "Sub": _sum,
    "Sum": _sum,
    "QuantizeLinear": _quantised,
}
