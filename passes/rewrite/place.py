"""Put channel placers behind the layers that add up a residual stream, say what gone filters give, take idle ones away.

See passes/channels/extras.py for what a placer is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..channels.blocks import convolutions_above, producers, residual_blocks, summed
from ..channels.constants import kept
from ..channels.extras import OFFSETS, PLACER, is_offsets, is_placer
from ..channels.groups import ChannelGroups
from ..channels.labels import LabelledGraph
from ..graph.mapped import tensor_array
from ..graph.model import Graph, constant_values

Array = np.ndarray


def with_placers(groups: ChannelGroups) -> onnx.ModelProto:
    """The model with a placer behind every convolution that adds to a residual stream; the same function.

    Behind its BatchNormalization, where that alone reads it: what BatchNormalization makes of a filter of zeros then is
    the placer's to give. Projections of shortcuts get none, as in the paper.
    """
    labelled = groups.labelled
    model = onnx.ModelProto()
    model.CopyFrom(labelled.graph.source)
    made = {output: number for number, node in enumerate(model.graph.node) for output in node.output}
    opset = labelled.graph.opset
    names = [_normalised(labelled.graph.gs.nodes[number]).name for number in stream_convolutions(groups)]
    for name in sorted(names, key=lambda name: made[name], reverse=True):
        if name in labelled.facts.shapes and len(labelled.facts.shapes[name]) == 4:
            _insert(model.graph, name, labelled.facts.shapes[name][1], made[name] + 1, opset)
    return model


def stream_convolutions(groups: ChannelGroups) -> tuple[int, ...]:
    """The numbers of the convolutions that make channels of a residual stream, but for projections of shortcuts."""
    blocks, nodes, made = residual_blocks(groups.labelled), groups.labelled.graph.gs.nodes, producers(groups)
    numbers = {number for name in summed(groups, blocks) for number in made.get(name, ())}
    streams = {n for n in numbers if nodes[n].op == "Conv" and int(nodes[n].attrs.get("group", 1)) == 1}
    outputs = {tensor.name for tensor in groups.labelled.graph.gs.outputs}
    projections: set[int] = set()
    for block in blocks:
        inside = streams & block.inside
        first = {number for number in inside if not convolutions_above(groups.labelled, number, block)}
        projections |= first if inside - first else set()
    return tuple(n for n in sorted(streams - projections) if _normalised(nodes[n]).name not in outputs)


def place_constants(labelled: LabelledGraph, removed: Array, cut: Graph) -> int:
    """Say in `cut` what filters of placed layers that are gone give: what a filter of zeros would; how many do.

    z = BN(b): the layer's bias b alone, through its BatchNormalization, where it has one, by the running statistics.
    labelled: of the original; removed: one bool a label, what was cut.
    """
    tensors, count = cut.gs.tensors(), 0
    for node in labelled.graph.gs.nodes:
        if not is_placer(node):
            continue
        data = labelled.axes[node.inputs[0].name][1][:-1]  # but for the channel of zeros
        lost = ~kept(data, removed)
        offsets = tensors.get(f"{node.name}{OFFSETS}")
        before, at = constant_values(node.inputs[1]), labelled.axes[node.outputs[0].name][1]
        if offsets is None or before is None or not lost.any():
            continue
        given = np.where(lost, _of_zeros(node.inputs[0].inputs[0].inputs[0]), 0)
        values = np.append(given, 0)[before][kept(at, removed)].reshape(1, -1, 1, 1)
        assert isinstance(offsets, gs.Constant)
        offsets.values = (offsets.values + values).astype(offsets.values.dtype)
        count += int(lost.sum())
    return count


def offsets_of(model: onnx.ModelProto) -> int:
    """How many numbers placers hold: what filters that are gone give."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if is_offsets(tensor.name))


def without_idle_placers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the placers that leave every channel where it was, and without offsets that are all zero."""
    kept_model = onnx.ModelProto()
    kept_model.CopyFrom(model)
    graph = kept_model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    for pad, gather, add in list(_placers(graph)):
        at = tensor_array(values[gather.input[1]])
        offsets = f"{gather.name}{OFFSETS}"
        plain = not tensor_array(values[offsets]).any()
        if plain:
            renamed[add.output[0]] = gather.output[0]
            graph.node.remove(add)
            graph.initializer.remove(values[offsets])
        if plain and at.max() < len(at) and np.array_equal(at, np.arange(len(at))):
            renamed[gather.output[0]] = pad.input[0]
            graph.node.remove(pad)
            graph.node.remove(gather)
            graph.initializer.remove(values[gather.input[1]])
    for node in graph.node:
        node.input[:] = [_last(renamed, name) for name in node.input]
    _forget(graph, renamed)
    return kept_model


def _placers(graph: onnx.GraphProto) -> Iterator[tuple[NodeProto, NodeProto, NodeProto]]:
    made = {name: node for node in graph.node for name in node.output}
    read = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type == "Gather" and node.name.startswith(PLACER):
            add = read.get(node.output[0])
            if add is not None and f"{node.name}{OFFSETS}" in add.input:
                yield made[node.input[0]], node, add


def _last(renamed: dict[str, str], name: str) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _forget(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    """Leave out what is said of tensors and numbers that nobody reads any more."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    idle = [t for t in graph.initializer if t.name.startswith(PLACER) and t.name not in read]
    for tensor in idle:
        graph.initializer.remove(tensor)
    left = [info for info in graph.value_info if info.name not in renamed]
    del graph.value_info[:]
    graph.value_info.extend(left)


def _normalised(node: gs.Node) -> gs.Tensor:
    """The output of the layer, or of the BatchNormalization that alone reads it."""
    readers = node.outputs[0].outputs
    if len(readers) == 1 and readers[0].op == "BatchNormalization" and readers[0].inputs[0] is node.outputs[0]:
        return readers[0].outputs[0]
    return node.outputs[0]


def _insert(graph: onnx.GraphProto, name: str, channels: int, position: int, opset: int) -> None:
    """A placer behind that tensor, read by all that have read it."""
    prefix = f"{PLACER}{name}"
    stored, attributes = [_offsets(graph, name, prefix, channels)], {}
    stored.append(numpy_helper.from_array(np.arange(channels, dtype=np.int64), f"{prefix}.at"))
    amounts = [0, 0, 0, 0, 0, 1, 0, 0]
    inputs = [name]
    if opset < 11:
        attributes["pads"] = amounts
    else:
        stored.append(numpy_helper.from_array(np.array(amounts, np.int64), f"{prefix}.pads"))
        inputs.append(f"{prefix}.pads")
    for node in graph.node:
        node.input[:] = [f"{prefix}.output" if read == name else read for read in node.input]
    nodes = [
        helper.make_node("Pad", inputs, [f"{prefix}.padded"], name=f"{prefix}.pad", **attributes),
        helper.make_node("Gather", [f"{prefix}.padded", f"{prefix}.at"], [f"{prefix}.placed"], name=prefix, axis=1),
        helper.make_node("Add", [f"{prefix}.placed", f"{prefix}{OFFSETS}"], [f"{prefix}.output"], name=f"{prefix}.add"),
    ]
    graph.initializer.extend(stored)
    for number, node in enumerate(nodes):
        graph.node.insert(position + number, node)


def _offsets(graph: onnx.GraphProto, name: str, prefix: str, channels: int) -> TensorProto:
    """Zeros, of the type that the layer computes in."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    made = next(node for node in graph.node if name in node.output)
    kind = next((types[read] for read in made.input[1:] if read in types), TensorProto.FLOAT)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return numpy_helper.from_array(np.zeros((1, channels, 1, 1), dtype), f"{prefix}{OFFSETS}")


def _of_zeros(tensor: gs.Tensor) -> Array:
    """(channels,) float64: what a layer whose filters are zero gives there."""
    node = tensor.inputs[0]
    if node.op == "BatchNormalization":
        gamma, beta, mean, variance = (np.asarray(constant_values(t), np.float64) for t in node.inputs[1:5])
        epsilon = float(node.attrs.get("epsilon", 1e-5))
        return beta + (_of_zeros(node.inputs[0]) - mean) * gamma / np.sqrt(variance + epsilon)
    bias = constant_values(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return np.zeros(constant_values(node.inputs[1]).shape[0])  # type: ignore[union-attr] - a stored weight
    return np.asarray(bias, np.float64)
