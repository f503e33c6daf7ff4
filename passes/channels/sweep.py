"""What a rule may ask and say while channels are labelled, one node at a time: the state of the sweep.

Every axis of a tensor is an integer array of labels. A label >= 0 belongs to a channel that may be removed; a negative
one marks positions that are no channels (batch, space, a graph input) and points at the reason. Constants start with
fresh labels, the rules of `rules/` carry them through the operators and say which labels are equal (ties), which must
stay (pins) and where one axis becomes several (splits). Nothing is solved here: see `groups.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.model import Graph, constant_values
from ..graph.shapes import Facts
from .extras import is_offsets
from .labels import Array, Axes, ConstantAxes, Consumer, LabelledGraph, Layout, Mask, Operand, Split, Term
from .node_view import NodeView

POSITION = -1  # the label of batch and spatial positions
_POSITION_REASON = "it meets positions (batch or space), which are not channels"


class Sweep(NodeView):
    """The state of the sweep, and what a rule may ask and say."""

    def __init__(self, graph: Graph, facts: Facts, *, inexact: bool = False) -> None:
        super().__init__(LabelledGraph(graph, facts))
        self.graph, self.facts, self.inexact = graph, facts, inexact
        self._reasons = {POSITION: _POSITION_REASON}
        self.moved: set[str] = set()
        self.relabelled: set[str] = set()  # moved constants whose labels are no longer those of the constant's axes
        self._readers = Counter(tensor.name for node in graph.gs.nodes for tensor in node.inputs)
        initializers = {t.name for t in graph.source.graph.initializer}
        for tensor in graph.gs.inputs:
            if tensor.name not in initializers:
                label = self._fix(f"graph input '{tensor.name}'")
                shape = facts.shapes.get(tensor.name, ())
                self.labelled.axes[tensor.name] = tuple(_filled(label, n) for n in shape)

    # --- what a rule asks, beside what a NodeView says ---------------------------------------------------------------

    @property
    def node(self) -> gs.Node:
        """The node at hand."""
        return self.original

    def axes(self, position: int) -> Axes:
        """The labels of an input, one array an axis; a constant gets its own when it is first read."""
        tensor = self.node.inputs[position]
        return self.labelled.axes[tensor.name] if tensor.name in self.labelled.axes else self.constant(tensor)

    def is_moved_constant(self, position: int) -> bool:
        """Whether the input is a constant, or one that was only moved about."""
        tensor = self.node.inputs[position]
        return tensor.name in self.moved or constant_values(tensor) is not None

    def fresh(self, size: int) -> Array:
        """New labels for `size` channels."""
        start = self.labelled.count
        self.labelled.count += size
        return np.arange(start, start + size, dtype=np.int64)

    def fixed(self, size: int) -> Array:
        """Labels of `size` positions that are no channels."""
        return _filled(POSITION, size)

    # --- what a rule says -------------------------------------------------------------------------------------------

    def set(self, position: int, axes: Iterable[Array]) -> None:
        """The labels of the node's output."""
        if position < len(self.node.outputs) and self.node.outputs[position].name:
            self.labelled.axes[self.node.outputs[position].name] = tuple(axes)

    def tie(self, first: Array, second: Array) -> None:
        """Index by index, the two axes carry the same channel."""
        if first is second:
            return
        first, second = np.ravel(first), np.ravel(second)
        fixed_first, fixed_second = first < 0, second < 0
        if fixed_first.any():
            self._pin_to(second[fixed_first], first[fixed_first])
        if fixed_second.any():
            self._pin_to(first[fixed_second], second[fixed_second])
        free = ~(fixed_first | fixed_second) & (first != second)
        if free.any():
            self.labelled.ties.append((first[free], second[free]))

    def pin(self, labels: Array, reason: str) -> None:
        """These channels must stay."""
        labels = np.ravel(labels)
        labels = labels[labels >= 0]
        if labels.size:
            self.labelled.pins.append((labels, reason))

    def keep(self, labels: Array, why: str) -> None:
        """Pin with the operator at hand in the reason."""
        if labels.size and (labels.strides[0] != 0 or labels[0] >= 0):
            self.pin(labels, f"{self.node.op} {why}")

    def couple(self, labels: Array, why: str) -> None:
        """The node takes statistics over these channels: they stay, or the rest is normalised by its own (inexact)."""
        if self.inexact:
            self.labelled.coupled.append((self.index, labels))
        else:
            self.keep(labels, why)

    def split(self, flat: Array, axes: Sequence[Array]) -> None:
        """`flat` (k-dimensional) and the k axes describe the same channels; see Split. ValueError: they cannot."""
        if flat.shape != tuple(len(axis) for axis in axes):
            raise ValueError(f"{flat.shape} channels do not stand on axes of {[len(axis) for axis in axes]}")
        self.labelled.splits.append(Split(flat, tuple(axes), self.name))

    def produces(self, labels: Array) -> None:
        """These rows of a constant weight make the channels of the node's output."""
        self.labelled.produced.append((self.index, labels))

    def contract(self, data: tuple[int, int], weight: tuple[int, int], layout: Layout | None = None) -> None:
        """The node sums products over an axis of each input, given as (input, axis): tie them, say who is silenced.

        layout: how the operator keeps the rest of its weight; None for a form that nothing else reads.
        """
        data_labels, weight_labels = self.axes(data[0])[data[1]], self.axes(weight[0])[weight[1]]
        self.tie(data_labels, weight_labels)
        self.consume(data, weight, weight_labels, layout)

    def consume(
        self, data: tuple[int, int], weight: tuple[int, int], labels: Array, layout: Layout | None = None
    ) -> None:
        """The same where the two axes are tied already; labels: what the weight is silenced by."""
        if self.is_moved_constant(weight[0]):
            name, constant = self.node.inputs[data[0]].name, self.node.inputs[weight[0]].name
            if constant in self.relabelled:
                self.mask(*data)
            else:
                self.labelled.consumed.append(labels)
            self.labelled.consumers.append(
                Consumer(
                    node=self.index,
                    data=name,
                    weight=constant,
                    labels=self.axes(data[0])[data[1]],
                    data_at=Operand(*data),
                    weight_at=Operand(*weight),
                    layout=layout,
                )
            )
        elif self.is_moved_constant(data[0]) and self.node.inputs[data[0]].name not in self.relabelled:
            self.labelled.consumed.append(self.axes(data[0])[data[1]])
        else:
            self.mask(*data)

    def mask(self, position: int, axis: int) -> None:
        """The node sums over this axis of an activation."""
        labels = self.axes(position)[axis]
        if (labels >= 0).any():
            self.labelled.masks.append(Mask(self.index, position, axis))

    def zero(self, position: int, values: Array) -> bool:
        """In this constant zero is written as `values`, which broadcasts to it; False if another reader differs."""
        before = self.labelled.zeros.setdefault(self.node.inputs[position].name, values)
        return before is values or np.array_equal(before, values)

    def quantised(self, *positions: int) -> None:
        """These integer constants are weights and biases of a quantised network: parameters, as float ones are."""
        self.labelled.quantised.update(self.node.inputs[i].name for i in positions if self.has(i))

    def macs(self, coefficient: float, axes: Sequence[Array]) -> None:
        """The node costs coefficient * prod(len(axis)) multiply-accumulates."""
        self.labelled.terms.append(Term(self.index, float(coefficient), tuple(axes)))

    def note(self, *axes: Array) -> None:
        """Labels that the rule's rewrite will want to see again."""
        self.labelled.notes[self.index] = axes

    # --- the walk ---------------------------------------------------------------------------------------------------

    def opaque(self, reason: str) -> None:
        """Nothing is known of this node: all that enters stays, what leaves are no channels."""
        for position, tensor in enumerate(self.node.inputs):
            if tensor.name:
                for labels in self.axes(position):
                    self.pin(labels, reason)
        label = self._fix(f"it meets the result of {self.node.op} ({reason})")
        for tensor in self.node.outputs:
            if tensor.name:
                self.labelled.axes[tensor.name] = tuple(
                    _filled(label, n) for n in self.facts.shapes.get(tensor.name, ())
                )

    def constant(self, tensor: gs.Tensor) -> Axes:
        """The labels of a constant: fresh ones an axis, once; for each reader anew where a shared vector is read."""
        values = constant_values(tensor)
        shape = self.facts.shapes.get(tensor.name, () if values is None else values.shape)
        shared_vector = self._readers[tensor.name] > 1 and sum(n > 1 for n in shape) <= 1
        use = self.node.outputs[0].name if shared_vector else ""
        key = (tensor.name, use)
        if key not in self.labelled.constants:
            if values is None or values.dtype.kind in "OSU":  # sparse, text, or a type that is read by nobody here
                labels = tuple(_filled(POSITION, n) for n in shape)
                self.labelled.constants[key] = ConstantAxes(tensor.name, use, labels, 0, False)
            else:
                labels = tuple(self.fresh(n) if n > 1 else self.fixed(n) for n in shape)
                floating = values.dtype.kind not in "iub" and not is_offsets(tensor.name)
                self.labelled.constants[key] = ConstantAxes(tensor.name, use, labels, values.dtype.itemsize, floating)
        return self.labelled.constants[key].labels

    def _fix(self, reason: str) -> int:
        label = -len(self._reasons) - 1
        self._reasons[label] = reason
        return label

    def _pin_to(self, labels: Array, fixed: Array) -> None:
        for label in np.unique(fixed):
            self.pin(labels[fixed == label], self._reasons[int(label)])


@lru_cache(maxsize=1 << 12)
def _filled(label: int, size: int) -> Array:
    return np.broadcast_to(np.int64(label), size)
