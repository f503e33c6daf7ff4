"""Take out of a cut graph what holds no channels any more, and put constants where something is left of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from ...graph.model import Graph, constant_values, make_constant, quiet
from ..constants import kept
from ..labels import LabelledGraph
from .folds import CARRIED, RESHAPED, WHOLE
from .settle import Settled, Wiring, settle

Array = np.ndarray
Biases = Mapping[str, Array]  # what a contraction without inputs gives -> (outputs before the cut,) float64


def settled_cut(labelled: LabelledGraph, removed: Array) -> Settled | None:
    """What becomes of the nodes; None where every tensor keeps a channel. removed: one bool a label."""
    empty = {
        name
        for name, axes in labelled.axes.items()
        if any(axis.size and axis[0] >= 0 and removed[axis[0]] and not kept(axis, removed).any() for axis in axes)
    }
    return settle(Wiring(labelled), empty) if empty else None


def take_out(graph: Graph, labelled: LabelledGraph, removed: Array, settled: Settled, biases: Biases) -> None:
    """Delete the nodes that went, in place; who remains reads constants in the places of what they made.

    graph: of the same nodes as the labelled one, its constants cut; biases: take the place of stored ones.
    """
    assert settled.problem is None, settled.problem
    nodes = list(graph.gs.nodes)
    values = _Values(graph, nodes, labelled, removed, biases, settled)
    made = {}
    for number, positions in settled.operands.items():
        for position in positions:
            name = nodes[number].inputs[position].name
            if name not in made:
                made[name] = make_constant(name, values.of(name))
            nodes[number].inputs[position] = made[name]
    for number in settled.gone:
        nodes[number].inputs.clear()
        nodes[number].outputs.clear()
    graph.gs.nodes = [node for number, node in enumerate(nodes) if number not in settled.gone]


@dataclass(slots=True)
class _Values:
    """The numbers of constants: of size 1 along axes where they do not differ."""

    graph: Graph
    nodes: Sequence[gs.Node]
    labelled: LabelledGraph
    removed: Array
    biases: Biases
    settled: Settled
    known: dict[str, Array] = field(default_factory=dict)

    def of(self, name: str) -> Array:
        """Of what a node gives that went."""
        if name not in self.known:
            number = next(n for n in self.settled.folded if any(t.name == name for t in self.nodes[n].outputs))
            dtype = helper.tensor_dtype_to_np_dtype(self.labelled.facts.dtypes[name])
            self.known[name] = self._made(self.nodes[number], number).astype(dtype)
        return self.known[name]

    def _made(self, node: gs.Node, number: int) -> Array:
        consumer = next((c for c in self.labelled.consumers if c.node == number), None)
        rank = len(self.labelled.facts.shapes[node.outputs[0].name])
        if consumer is not None and consumer.layout is not None and consumer.data not in self.settled.constants:
            return self._bias(node, consumer.layout.bias, consumer.layout.result, rank)
        operands = [self._operand(t) for t in node.inputs]
        if node.op in CARRIED:
            return operands[0]
        if node.op in RESHAPED:
            return self._reshaped(node, operands[0])
        if node.op in WHOLE:
            operands[0] = self._whole(operands[0], node.inputs[0].name, WHOLE[node.op])
        if node.op == "BatchNormalization":
            return normalised(node, operands)
        return evaluate(self.graph, node, operands)

    def _bias(self, node: gs.Node, position: int | None, result: int, rank: int) -> Array:
        """Of a contraction that reads nothing: what is given, else what is stored."""
        name = node.outputs[0].name
        shape = [1] * rank
        if name in self.biases:
            shape[result] = -1
            outputs = kept(self.labelled.axes[name][result], self.removed)
            return self.biases[name][outputs].reshape(shape)
        if position is None or position >= len(node.inputs) or not node.inputs[position].name:
            return np.zeros(shape)
        bias = self._operand(node.inputs[position])
        if bias.ndim == 1:
            shape[result] = -1
            return bias.reshape(shape)
        return bias.reshape([1] * (rank - bias.ndim) + list(bias.shape))

    def _operand(self, tensor: gs.Tensor) -> Array:
        """Stored, computed from stored values alone, or left by a node that went; floats as float64."""
        if tensor.name in self.settled.constants:
            found = self.of(tensor.name)
        else:
            stored = constant_values(tensor)
            if stored is not None:
                found = stored
            elif tensor.inputs:
                maker = tensor.inputs[0]
                found = evaluate(
                    self.graph, maker, [self._operand(t) for t in maker.inputs], maker.outputs.index(tensor)
                )
            else:  # an input that is left out
                return np.zeros(0)
        return found.astype(np.float64) if found.dtype.kind in "fV" else found

    def _whole(self, operand: Array, name: str, axis: int) -> Array:
        """With all the channels of that axis, where the constant is the same in each."""
        axes = self.labelled.axes[name]
        shape = list(operand.shape)
        shape[axis] = int(kept(axes[axis], self.removed).sum())
        return np.broadcast_to(operand, shape)

    def _reshaped(self, node: gs.Node, operand: Array) -> Array:
        """Axes along which the constant differs remain, in their order; all others have size 1."""
        name = node.outputs[0].name
        sizes = iter([n for n in operand.shape if n > 1])
        axes = self.labelled.axes[name]
        varying = self.settled.constants[name]
        wide = [i for i in sorted(varying) if kept(axes[i], self.removed).sum() > 1] if operand.size > 1 else []
        shape = [1] * len(axes)
        for axis in wide:
            shape[axis] = next(sizes)
        return operand.reshape(shape)


def normalised(node: gs.Node, operands: Sequence[Array]) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift; ONNX's reference trains before opset 14."""
    x = operands[0]
    scale, shift, mean, variance = (v.reshape(1, -1, *(1,) * (x.ndim - 2)) for v in operands[1:5])
    with np.errstate(all="ignore"):
        return (x - mean) / np.sqrt(variance + node.attrs.get("epsilon", 1e-5)) * scale + shift


def evaluate(graph: Graph, node: gs.Node, operands: Sequence[Array], output: int = 0) -> Array:
    """What a node of ONNX's own operators gives for these inputs, by ONNX's reference."""
    from onnx.reference import ReferenceEvaluator

    with quiet():
        proto = OnnxExporter.export_node(node)
    given = {name: array for name, array in zip(proto.input, operands, strict=True) if name}
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), None) for n, a in given.items()
    ]
    body = helper.make_graph(
        [proto], "node", inputs, [helper.make_empty_tensor_value_info(o) for o in proto.output if o]
    )
    model = helper.make_model(body, opset_imports=graph.source.opset_import, ir_version=onnx.IR_VERSION)
    with np.errstate(all="ignore"):  # what is no number in the original is none here
        found: Sequence[Array] = ReferenceEvaluator(model).run([proto.output[output]], given)  # type: ignore[assignment]
    return np.asarray(found[0])
