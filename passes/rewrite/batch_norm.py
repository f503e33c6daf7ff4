"""BatchNormalization put back behind convolutions for training, and folded into their weights again.

Exporters fold it: w' = w * scale / sqrt(var + epsilon), b' = (b - mean) * scale / sqrt(var + epsilon) + bias. Put back
with the statistics of what the convolution makes, scale = sqrt(var + epsilon) and bias = mean, it changes nothing
until it is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..graph.bodies import taken_names
from ..graph.names import Names, modules

Array = np.ndarray

EPSILON = 1e-5
MOMENTUM = 0.9  # of ONNX: the part of the running statistics that stays
_MARK = ".batch_norm"  # after the name of the tensor that is normalised: nodes and tensors that are put in
_PARTS = ("scale", "bias", "mean", "var")
_FLOATS = frozenset([onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE])
# What reads a normalised tensor in the networks that use BatchNormalization.
_FOLLOWERS = (
    frozenset(["Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"])
    | frozenset(["Sigmoid", "Softplus", "Tanh", "Add", "Mul", "Sub", "Sum", "Concat", "Split", "Slice", "Pad"])
    | frozenset(["Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "Resize"])
    | frozenset(["Dropout", "Identity"])
)


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Mean and variance of each channel of a tensor over images and positions, float64 (C,)."""

    mean: Array
    var: Array


def normalisable(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Outputs of convolutions that can take a BatchNormalization and have none, in order.

    The convolution has a bias (a folded BatchNormalization left one) and weights of its own; its output is none of the
    graph's, and is read only by what reads normalised tensors.
    """
    stored = dict(stored_tensors(graph))
    readers = _readers(graph)
    outputs = {value.name for value in graph.output}
    names = []
    for node in graph.node:
        own = [name for name in node.input[1:] if name in stored and len(readers[name]) == 1]
        followers = {reader.op_type for reader in readers.get(node.output[0], ())}
        if node.op_type not in ("Conv", "ConvTranspose") or len(own) != 2 or node.output[0] in outputs:
            continue
        if followers and followers <= _FOLLOWERS and stored[own[0]].data_type in _FLOATS:
            names.append(node.output[0])
    return tuple(names)


def insert_batch_norms(model: onnx.ModelProto, statistics: Mapping[str, ChannelStatistics]) -> onnx.ModelProto:
    """A copy of the model with a BatchNormalization behind each named tensor, that computes what the model does.

    The name goes to the normalised tensor. Names that are no output of a convolution are not looked for.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = dict(stored_tensors(copy.graph))
    taken = set(taken_names(copy.graph))
    names = Names(taken | modules(taken))
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        copy.graph.node.append(node)
        name = node.output[0] if node.output else ""
        if name in statistics:
            inputs = _inputs(names.fresh(name + _MARK))
            copy.graph.node[-1].output[0] = inputs[0]
            norm = helper.make_node("BatchNormalization", inputs, [name], epsilon=EPSILON, momentum=MOMENTUM)
            norm.name = inputs[0]
            copy.graph.node.append(norm)
            _store(copy, inputs[1:], statistics[name], stored[node.input[1]].data_type)
    return copy


def _inputs(name: str) -> list[str]:
    """What a BatchNormalization of that name reads where it was put in: a tensor called as it is, and its parts."""
    return [name, *(f"{name}.{part}" for part in _PARTS)]


def _is_put_in(node: onnx.NodeProto) -> bool:
    """Whether `insert_batch_norms` made the node; a model may have nodes of its own whose names look alike."""
    return node.op_type == "BatchNormalization" and list(node.input) == _inputs(node.name) and _MARK in node.name


def _store(model: onnx.ModelProto, names: list[str], statistics: ChannelStatistics, dtype: int) -> None:
    """The scale, bias, mean and variance with which a BatchNormalization changes nothing."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    values = (np.sqrt(statistics.var + EPSILON), statistics.mean, statistics.mean, statistics.var)
    for name, array in zip(names, values, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(array.astype(kind), name))
        if model.ir_version < 4:  # before that an initializer is listed as an input
            model.graph.input.append(helper.make_tensor_value_info(name, dtype, array.shape))


def fold_batch_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which what `insert_batch_norms` put in went into weights and biases, computed in float64.

    Names, nodes and everything else are as they were before.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = dict(stored_tensors(copy.graph))
    makers = {name: node for node in copy.graph.node for name in node.output}
    put_in = [node for node in copy.graph.node if _is_put_in(node)]
    for norm in put_in:
        node = makers[norm.input[0]]
        scale, bias, mean, var = (_values(stored[name]) for name in norm.input[1:])
        factor = scale / np.sqrt(var + _epsilon(norm))
        shift = bias - mean * factor
        _scale_filters(node, stored, factor, shift)
        node.output[0] = norm.output[0]
    _drop(copy.graph, put_in)
    return copy


def _scale_filters(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], factor: Array, shift: Array) -> None:
    """W = w * factor, b = b * factor + shift, one a filter; a transposed convolution stacks them group by group."""
    weight, bias = stored[node.input[1]], stored[node.input[2]]
    values = _values(weight)
    if node.op_type == "ConvTranspose":
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        grouped = values.reshape(group, values.shape[0] // group, *values.shape[1:])
        scaled = grouped * factor.reshape(group, 1, -1, *(1,) * (values.ndim - 2))
    else:
        scaled = values * factor.reshape(-1, *(1,) * (values.ndim - 1))
    _put(weight, scaled.reshape(values.shape))
    _put(bias, _values(bias) * factor + shift)


def _epsilon(norm: onnx.NodeProto) -> float:
    return next((a.f for a in norm.attribute if a.name == "epsilon"), EPSILON)


def _drop(graph: onnx.GraphProto, norms: list[onnx.NodeProto]) -> None:
    gone = {name for norm in norms for name in norm.input}
    for norm in norms:
        graph.node.remove(norm)
    for tensor in [t for t in graph.initializer if t.name in gone]:
        graph.initializer.remove(tensor)
    for value in [v for v in graph.input if v.name in gone]:
        graph.input.remove(value)


def stored_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Initializers and the tensors of Constant nodes, by the name under which nodes read them."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _values(tensor: onnx.TensorProto) -> Array:
    return numpy_helper.to_array(tensor).astype(np.float64)


def _put(tensor: onnx.TensorProto, values: Array) -> None:
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    fresh = numpy_helper.from_array(values.astype(kind), tensor.name)
    for field in ("float_data", "double_data"):
        tensor.ClearField(field)
    tensor.raw_data = fresh.raw_data
