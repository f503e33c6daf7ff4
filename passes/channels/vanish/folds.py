"""What a node gives where an input holds no channels, or the same numbers in every run: one row an operator.

A contraction of nothing is its bias. From there a constant goes on through operators that give a constant for a
constant, up to one that also reads what is computed and takes the constant as an operand. An operator without a row
can do neither, so that what is in front of it has to keep a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from ..labels import Axes, Consumer, LabelledGraph
from ..rules.elementwise import NARY, UNARY

Varying: TypeAlias = frozenset[int]  # axes along which a constant differs; on all others it has size 1


class Stays(Enum):
    """The node remains, and takes what is constant as an operand."""

    STAYS = 0


STAYS = Stays.STAYS
Outcome: TypeAlias = Varying | Stays | str  # a constant, a node that remains, or why it can be neither


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node of the labelled graph, with what is known of its inputs.

    empty: tensors that hold no channels; constants: those that hold the same in every run, `static` ones included,
    which are computed from stored values alone; consumers: the contractions of the node.
    """

    labelled: LabelledGraph
    node: gs.Node
    empty: Collection[str]
    constants: Mapping[str, Varying]
    static: Collection[str]
    consumers: Collection[Consumer]

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs that are given."""
        return [t.name for t in self.node.inputs if t.name]

    @property
    def live(self) -> list[str]:
        """Those that are computed in every run."""
        return [name for name in self.inputs if name not in self.constants]

    def axes(self, name: str) -> Axes:
        return self.labelled.axes.get(name, ())

    def shape(self, name: str) -> tuple[int, ...]:
        return self.labelled.facts.shapes.get(name, ())

    @property
    def output(self) -> str:
        return self.node.outputs[0].name

    def varying(self, position: int = 0) -> Varying:
        return self.constants[self.node.inputs[position].name]

    def only_data_is_new(self) -> bool:
        """Whether all inputs but the first are stored values, and there is one output."""
        rest = [t.name for t in self.node.inputs[1:] if t.name]
        return all(name in self.static for name in rest) and sum(bool(t.name) for t in self.node.outputs) == 1


def outcome(site: KnownNode) -> Outcome:
    """What the node gives, where an input is empty or constant and its outputs hold channels."""
    emptied = [consumer for consumer in site.consumers if consumer.data in site.empty]
    if emptied:
        return _bias_alone(site, emptied[0])
    row = FOLDS.get(site.node.op) if site.node.domain in (None, "", "ai.onnx") else None
    ready = row in (_join, _pointwise) or site.node.inputs[0].name in site.constants
    if row is None or not ready:
        what = "nothing" if any(name in site.empty for name in site.inputs) else "a constant"
        return f"{site.node.op} would read {what}"
    return row(site)


def _bias_alone(site: KnownNode, consumer: Consumer) -> Outcome:
    """Y = W u + b without any u is b, where the bias is stored."""
    layout = consumer.layout
    if layout is None or not layout.exact or len(site.consumers) > 1:
        return f"{site.node.op} would sum over nothing"
    rank = len(site.shape(site.output))
    position = layout.bias
    if position is None or position >= len(site.node.inputs) or not site.node.inputs[position].name:
        return frozenset()
    bias = site.node.inputs[position].name
    if bias not in site.static:
        return f"{site.node.op} would be left with a bias that is computed"
    shape = site.shape(bias)
    if len(shape) == 1:
        return frozenset({layout.result})
    return frozenset(rank - len(shape) + i for i, n in enumerate(shape) if n > 1)


def _pointwise(site: KnownNode) -> Outcome:
    """Constant if all operands are; else one of the others must have the whole shape of the result."""
    if sum(bool(t.name) for t in site.node.outputs) > 1:
        return f"{site.node.op} has a second result"
    rank = len(site.shape(site.output))
    if not site.live:
        offsets = [(rank - len(site.shape(name)), site.constants[name]) for name in site.inputs]
        return frozenset(offset + axis for offset, axes in offsets for axis in axes)
    if any(name in site.empty for name in site.inputs):
        return f"{site.node.op} would read nothing"
    if any(site.shape(name) == site.shape(site.output) for name in site.live):
        return STAYS
    return f"{site.node.op} would lose the shape of its result"


def _first(site: KnownNode) -> Outcome:
    """The other inputs are parameters."""
    if not site.only_data_is_new():
        return f"{site.node.op} has parameters that are computed"
    return site.varying()


def _dropout(site: KnownNode) -> Outcome:
    trains = len(site.node.inputs) > 2 and site.node.inputs[2].name
    return f"{site.node.op} may train" if trains else _first(site)


def _batch_norm(site: KnownNode) -> Outcome:
    if site.node.attrs.get("training_mode") or not site.only_data_is_new():
        return f"{site.node.op} takes statistics of a constant"
    return site.varying() | {1}


def _pool(site: KnownNode) -> Outcome:
    """Windows of a constant hold the constant, unless zeros that pad it are counted."""
    padded = any(site.node.attrs.get("pads", ())) or site.node.attrs.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    counted = site.node.op == "AveragePool" and (
        site.node.attrs.get("count_include_pad") or site.node.attrs.get("ceil_mode")
    )
    if site.varying() - {1} or not site.only_data_is_new() or (padded and counted):
        return f"{site.node.op} would read a constant that has borders"
    return site.varying()


def _resize(site: KnownNode) -> Outcome:
    outside = site.node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if site.varying() - {1} or outside or len(site.axes(site.output)[1]) != len(site.axes(site.inputs[0])[1]):
        return f"{site.node.op} would read a constant that has borders"
    return site.varying()


def _pointwise_convolution(site: KnownNode) -> Outcome:
    """A kernel of one position sees the constant alone; a larger one also sees the zeros around it."""
    kernel = site.shape(site.inputs[1])[2:]
    padded = any(site.node.attrs.get("pads", ())) or site.node.attrs.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    if any(n > 1 for n in kernel) or padded or site.varying() - {1} or not site.only_data_is_new():
        return f"{site.node.op} would read a constant with the zeros around it"
    return frozenset({1})


def _product(site: KnownNode) -> Outcome:
    """Rows of the constant times a stored matrix."""
    if not site.only_data_is_new() or site.node.attrs.get("transA") or len(site.shape(site.inputs[1])) != 2:
        return f"{site.node.op} would read a constant"
    rank = len(site.shape(site.output))
    addend = site.shape(site.inputs[2]) if len(site.inputs) > 2 else ()
    more = {rank - len(addend) + i for i, n in enumerate(addend) if n > 1}
    return (site.varying() - {rank - 1}) | {rank - 1} | more


def _transpose(site: KnownNode) -> Outcome:
    rank = len(site.shape(site.output))
    order = site.node.attrs.get("perm") or list(range(rank))[::-1]
    return frozenset(i for i, axis in enumerate(order) if axis in site.varying())


def _reshape(site: KnownNode) -> Outcome:
    """Each axis along which the constant differs has to remain an axis of its own."""
    before, after = site.axes(site.inputs[0]), site.axes(site.output)
    found = []
    for axis in sorted(site.varying()):
        same = [i for i, labels in enumerate(after) if (labels >= 0).any() and np.array_equal(labels, before[axis])]
        if len(same) != 1:
            return f"{site.node.op} would mix a constant's channels"
        found += same
    return frozenset(found) if found == sorted(found) else f"{site.node.op} would mix a constant's channels"


def _mean(site: KnownNode) -> Outcome:
    """The mean, or an extreme, over positions that are all alike."""
    rank, out = len(site.shape(site.inputs[0])), len(site.shape(site.output))
    reduced = reduced_axes(site, rank)
    if not site.only_data_is_new() or reduced is None or site.varying() & reduced:
        return f"{site.node.op} would read a constant"
    if out == rank:
        return site.varying()
    left = [axis for axis in range(rank) if axis not in reduced]
    return frozenset(left.index(axis) for axis in site.varying())


def reduced_axes(site: KnownNode, rank: int) -> frozenset[int] | None:
    """The axes that a reduction goes over; None where they are computed."""
    axes = site.node.attrs.get("axes")
    if axes is None and len(site.node.inputs) > 1 and site.node.inputs[1].name:
        known = site.labelled.facts.values.get(site.node.inputs[1].name)
        if known is None:
            return None
        axes = np.ravel(known).tolist()
    if not axes:
        return frozenset() if site.node.attrs.get("noop_with_empty_axes") else frozenset(range(rank))
    return frozenset(int(a) % rank for a in axes)


def _join(site: KnownNode) -> Outcome:
    """Operands without channels are left out; a constant has no positions to be joined along."""
    left = [name for name in site.inputs if name not in site.empty]
    for name in left:
        if name in site.constants and name not in site.static:
            return f"{site.node.op} would join a constant"
    if not any(name in site.live for name in left):
        return f"{site.node.op} would join stored values alone"
    return STAYS


_POSITIONS = dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin"), _mean)
_POOLS = dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool"), _pool)
_SHAPES = dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape)
FOLDS: dict[str, Callable[[KnownNode], Outcome]] = {
    **dict.fromkeys(UNARY, _first),
    **dict.fromkeys(NARY, _pointwise),
    "Clip": _first,
    "Dropout": _dropout,
    "BatchNormalization": _batch_norm,
    **_POOLS,
    "Resize": _resize,
    "Upsample": _resize,
    "Conv": _pointwise_convolution,
    "MatMul": _product,
    "Gemm": _product,
    "Transpose": _transpose,
    **_SHAPES,
    **_POSITIONS,
    "Concat": _join,
}
# What gives back each number of a constant as it is: nothing needs to be computed.
CARRIED = frozenset({*_POOLS, "Resize", "Upsample"})
RESHAPED = frozenset(_SHAPES)
WHOLE = {"Conv": 1, "MatMul": -1, "Gemm": -1, "BatchNormalization": 1}  # the axis of which all channels must be given
