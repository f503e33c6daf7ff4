"""What the weights of a model say of the sizes and numbers of its inputs, where the inputs leave them open.

A convolution says how many channels it reads, a product how many features, a recurrent network how large its states
are; a comparison with a constant says which sample rates a model knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto, numpy_helper

from ...passes.graph.bodies import bodies

BATCH = 0  # in the place of a size: that of the batch
_Axes = tuple[int | None, ...]  # of a tensor: the input's axis that each is; None where it is none of them
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_RATE_NAME = re.compile(r"sr|fs|.*(sample|sampling).*rate.*|rate", re.IGNORECASE)
_RATES = (16000, 8000)
# What leaves the axes alone: x is the first input.
_SAME = frozenset(["Identity", "Cast", "Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Abs", "Neg", "Exp"])
_SAME |= {"Log", "Sqrt", "Clip", "Softplus", "Erf", "Gelu", "HardSwish", "Dropout", "Add", "Sub", "Mul", "Div", "Pow"}
_SAME |= {"Max", "Min", "BatchNormalization", "InstanceNormalization", "LayerNormalization"}


def needed_sizes(graph: onnx.GraphProto) -> dict[str, dict[int, int]]:
    """Input -> its axes whose size the weights tell -> that size, or BATCH."""
    found: dict[str, dict[int, int]] = {}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in graph.input if v.type.tensor_type.HasField("shape")}
    at: dict[str, tuple[str, _Axes]] = {name: (name, tuple(range(rank))) for name, rank in ranks.items()}
    for node, dims in _nodes(graph, {}):
        for name, axis, size in _asked(node, dims, at):
            source, axes = at[name]
            if -len(axes) <= axis < len(axes) and axes[axis] is not None:
                found.setdefault(source, {}).setdefault(axes[axis], size)  # type: ignore[arg-type]
        moved = _moved(node, dims, at)
        if moved is not None:
            at.update({name: moved for name in node.output if name not in at})
    return found


def _nodes(
    graph: onnx.GraphProto, around: Mapping[str, list[int]]
) -> Iterator[tuple[onnx.NodeProto, Mapping[str, list[int]]]]:
    """Every node, those of bodies too, with the dimensions of the weights that it can read."""
    dims = {**around, **{tensor.name: list(tensor.dims) for tensor in graph.initializer}}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            dims[node.output[0]] = list(node.attribute[0].t.dims)
        yield node, dims
        for body in bodies(node):
            yield from _nodes(body, dims)


def _moved(
    node: onnx.NodeProto, dims: Mapping[str, list[int]], at: Mapping[str, tuple[str, _Axes]]
) -> tuple[str, _Axes] | None:
    """Which axes of which input the node's outputs have, where it only passes one on, or a part of one."""
    known = [name for name in node.input if name in at]
    if not known:
        return None
    source, axes = at[known[0]]
    after = axes if node.op_type in _SAME else _rearranged(node, dims, axes)
    return None if after is None else (source, after)


def _rearranged(node: onnx.NodeProto, dims: Mapping[str, list[int]], axes: _Axes) -> _Axes | None:
    """The axes behind a Transpose, a Split, or a Gather of one index; None behind other operators."""
    if node.op_type == "Transpose":
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(len(axes)))[::-1])
        return tuple(axes[i] for i in order) if sorted(order) == list(range(len(axes))) else None
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if not -len(axes) <= axis < len(axes):
        return None
    before, after = axes[: axis % len(axes)], axes[axis % len(axes) + 1 :]
    if node.op_type == "Split":
        return (*before, None, *after)
    return (*before, *after) if node.op_type == "Gather" and dims.get(node.input[1]) == [] else None


def _asked(
    node: onnx.NodeProto, dims: Mapping[str, list[int]], at: Mapping[str, tuple[str, _Axes]]
) -> Iterator[tuple[str, int, int]]:
    """(tensor, its axis, size) of each input of the node whose size its weights tell."""
    inputs = [*node.input, "", "", "", "", "", ""]
    weight = dims.get(inputs[1])
    if inputs[0] in at and weight is not None:
        number = {a.name: a.i for a in node.attribute}
        if node.op_type == "Conv" and len(weight) > 1:
            yield inputs[0], 1, weight[1] * number.get("group", 1)
        elif node.op_type == "ConvTranspose" and weight:
            yield inputs[0], 1, weight[0]
        elif node.op_type == "MatMul" and len(weight) > 1:
            yield inputs[0], -1, weight[-2]
        elif node.op_type == "Gemm" and len(weight) == 2 and not number.get("transA"):
            yield inputs[0], 1, weight[1 if number.get("transB") else 0]
    if node.op_type in _GATES:
        yield from _recurrent(inputs, dims, at)


def _recurrent(
    inputs: list[str], dims: Mapping[str, list[int]], at: Mapping[str, tuple[str, _Axes]]
) -> Iterator[tuple[str, int, int]]:
    """The features that a recurrent network reads, and its states: (directions, batch, hidden)."""
    read, again = dims.get(inputs[1], []), dims.get(inputs[2], [])
    if inputs[0] in at and len(read) == 3:
        yield from ((inputs[0], 1, BATCH), (inputs[0], 2, read[2]))
    for state in inputs[5:7]:
        if state in at and len(again) == 3:
            yield from ((state, 0, again[0]), (state, 1, BATCH), (state, 2, again[2]))


def known_numbers(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Integer inputs of one element -> the numbers that the graph compares them with, or usual sample rates."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
    compared: dict[str, list[int]] = {}
    for node in graph.node:
        if node.op_type == "Equal":
            for name, other in (tuple(node.input), tuple(node.input)[::-1]):
                tensor = constants.get(other)
                if tensor is not None and tensor.data_type in (TensorProto.INT64, TensorProto.INT32):
                    compared.setdefault(name, []).extend(numpy_helper.to_array(tensor).ravel().tolist()[:1])
    found = {}
    for value in graph.input:
        kind = value.type.tensor_type
        single = kind.HasField("shape") and all(d.dim_value == 1 for d in kind.shape.dim)
        if single and kind.elem_type in (TensorProto.INT64, TensorProto.INT32):
            numbers = (*compared.get(value.name, ()), *(_RATES if _RATE_NAME.fullmatch(value.name) else ()))
            if numbers:
                found[value.name] = tuple(dict.fromkeys(numbers))
    return found
