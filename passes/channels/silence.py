"""The twin for the proof: the original graph with the consumers of removed channels zeroed.

Cutting a unit equals zeroing its consumed slices, not the produced ones: after a BatchNorm a zeroed filter is not zero.
Where two activations are contracted there is no weight to zero: a mask in front of the node does it. A node whose
statistics run over channels that may go all the same (--inexact) sees only those that are kept.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from ..graph.model import Graph
from ..graph.names import Names
from .constants import edit_constants, gone, kept
from .labels import ConstantAxes, LabelledGraph, Mask
from .node_view import NodeView

Array = np.ndarray


def silence(labelled: LabelledGraph, removed: Array, graph: Graph | None = None) -> Graph:
    """The original graph with what reads the removed labels (one bool a label) silenced. Interface and sizes stay.

    graph: a copy of the original to do it in, by default a new one.
    """
    graph = labelled.graph.copy() if graph is None else graph
    twin = _Twin(graph, labelled, removed)
    consumed = np.zeros(labelled.count, bool)
    for array in labelled.consumed:
        consumed[array[array >= 0]] = True
    for first, other in reversed(labelled.joined):  # the axis of a joined weight goes by its first part's labels
        both = (first >= 0) & (other >= 0)
        consumed[other[both]] |= consumed[first[both]]
    silenced = consumed & removed

    def zero(constant: ConstantAxes, values: Array) -> Array:
        values = values.copy()
        nothing = np.broadcast_to(labelled.zeros.get(constant.name, np.zeros((), values.dtype)), values.shape)
        for axis, labels in enumerate(constant.labels):
            index = (slice(None),) * axis + (gone(labels, silenced),)
            values[index] = nothing[index]
        return values

    edit_constants(graph, labelled, silenced, zero)
    for mask in labelled.masks:
        twin.begin(mask.node)
        twin.mask(mask)
    for index in sorted({index for index, coupled in labelled.coupled if gone(coupled, removed).any()}):
        twin.begin(index)
        twin.narrow()
    return graph


class _Twin(NodeView):
    """Nodes put around those of a copy of the labelled graph."""

    def __init__(self, graph: Graph, labelled: LabelledGraph, removed: Array) -> None:
        super().__init__(labelled)
        self.graph, self.removed = graph, removed
        self._nodes = list(graph.gs.nodes)
        self._taken: Names | None = None

    @property
    def _names(self) -> Names:
        """Those that are taken; asked for seldom, and long to gather."""
        if self._taken is None:
            self._taken = self.graph.names()
        return self._taken

    def mask(self, mask: Mask) -> None:
        """Zeros along one axis of an input."""
        axes, node = self.axes(mask.input), self._nodes[self.index]
        zeros = gone(axes[mask.axis], self.removed)
        if not zeros.any():
            return
        shape = [1] * len(axes)
        shape[mask.axis] = -1
        name = self.original.inputs[mask.input].name
        dtype = helper.tensor_dtype_to_np_dtype(self.labelled.facts.dtypes.get(name, 1))
        node.inputs[mask.input] = self._put("Mul", node.inputs[mask.input], (~zeros).astype(dtype).reshape(shape), node)

    def narrow(self) -> None:
        """Let the node see the kept channels only; in the place of the others its results repeat the first.

        An axis that keeps none is left alone: nobody reads what comes of it.
        """
        node = self._nodes[self.index]
        for position, tensor in enumerate(node.inputs):
            for axis, labels in enumerate(self.axes(position) if tensor.name else ()):
                left = np.flatnonzero(kept(labels, self.removed))
                if 0 < len(left) < len(labels):
                    node.inputs[position] = self._put("Gather", node.inputs[position], left, node, axis=axis)
        for position in range(len(node.outputs)):
            for axis, labels in enumerate(self.output_axes(position)):
                left = kept(labels, self.removed)
                if left.any() and not left.all():
                    self._spread(node, position, np.where(left, np.cumsum(left) - 1, 0), axis)

    def _put(self, op: str, tensor: gs.Tensor, operand: Array, before: gs.Node, **attrs: int) -> gs.Tensor:
        output = gs.Variable(self._names.numbered("silenced"))
        inputs = [tensor, gs.Constant(self._names.numbered("silence"), operand)]
        node = gs.Node(op, name=output.name, attrs=attrs, inputs=inputs, outputs=[output])
        self.graph.gs.nodes.insert(self.graph.gs.nodes.index(before), node)
        return output

    def _spread(self, node: gs.Node, position: int, index: Array, axis: int) -> None:
        output = node.outputs[position]
        node.outputs[position] = narrow = gs.Variable(self._names.numbered("narrow"))
        inputs = [narrow, gs.Constant(self._names.numbered("silence"), index)]
        gather = gs.Node("Gather", name=narrow.name, attrs={"axis": axis}, inputs=inputs, outputs=[output])
        self.graph.gs.nodes.insert(self.graph.gs.nodes.index(node) + 1, gather)
