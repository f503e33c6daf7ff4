"""Whether two models say the same, node by node and weight by weight, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, external_data_helper

from .mapped import entries, is_external, is_mapped, tensor_array

_ONNX = ("", "ai.onnx")


def different_nodes(first: onnx.GraphProto, second: onnx.GraphProto) -> Iterator[str]:
    """The first output of each node that is not the same in both, or not at the same place.

    The same is: the operator, what it reads and makes, and its attributes; names of nodes and notes do not count.
    """
    for one, other in zip(first.node, second.node, strict=False):
        if not same_node(one, other):
            yield _name(one)
    shorter, longer = sorted([first.node, second.node], key=len)
    yield from (_name(node) for node in longer[len(shorter) :])


def same_node(one: NodeProto, other: NodeProto) -> bool:
    """Whether two nodes do the same: operator, inputs, outputs, attributes."""
    if (one.op_type, list(one.input), list(one.output)) != (other.op_type, list(other.input), list(other.output)):
        return False
    if one.domain != other.domain and {one.domain, other.domain} != set(_ONNX):
        return False
    return _attributes(one) == _attributes(other)


def _attributes(node: NodeProto) -> dict[str, bytes]:
    """Name -> type and value; what a reader may leave out when it writes again is left out."""
    found = {}
    for attribute in node.attribute:
        if attribute.doc_string:
            plain = AttributeProto()
            plain.CopyFrom(attribute)
            plain.ClearField("doc_string")
            attribute = plain  # noqa: PLW2901 - the same without its note
        found[attribute.name] = attribute.SerializeToString(deterministic=True)
    return found


def _name(node: NodeProto) -> str:
    return next((name for name in node.output if name), node.op_type)


def different_weights(first: onnx.GraphProto, second: onnx.GraphProto, folder: Path | None = None) -> Iterator[str]:
    """Names of initializers that only one of them has, or that are not equal to the bit.

    folder: where external weights of the second lie; one tensor at a time is read.
    """
    held, others = _weights(first), _weights(second)
    yield from (name for name in {**held, **others} if not (name in held and name in others))
    for name in held.keys() & others:
        if not same_tensor(held[name], loaded(others[name], folder)):
            yield name


def loaded(tensor: TensorProto, folder: Path | None) -> TensorProto:
    """The tensor with its values, read by ONNX's own reader where they lie in another file."""
    if folder is None or not is_external(tensor):
        return tensor
    whole = TensorProto()
    whole.CopyFrom(tensor)
    try:
        external_data_helper.load_external_data_for_tensor(whole, str(folder))
    except onnx.checker.ValidationError:
        # It reads no links, soft or hard, and caches keep models as such; where links may lead was looked at when the
        # model was read.
        said = entries(tensor)
        with (folder / said.get("location", "")).open("rb") as file:
            file.seek(int(said.get("offset", 0)))
            whole.raw_data = file.read(int(said.get("length", -1)))
    whole.data_location = TensorProto.DEFAULT
    del whole.external_data[:]
    return whole


def _weights(graph: onnx.GraphProto) -> Mapping[str, TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def same_tensor(one: TensorProto, other: TensorProto) -> bool:
    """Whether type, shape and every bit of two tensors are equal; of one file, whether they lie at the same place."""
    if one.data_type != other.data_type or list(one.dims) != list(other.dims):
        return False
    if is_mapped(one) and is_mapped(other):
        return entries(one) == entries(other)
    if one.HasField("raw_data") and other.HasField("raw_data"):
        return one.raw_data == other.raw_data
    if one.data_type == TensorProto.STRING:
        return list(one.string_data) == list(other.string_data)
    if (is_external(one) and not is_mapped(one)) or (is_external(other) and not is_mapped(other)):
        return False
    return same_values(tensor_array(one), tensor_array(other))


def same_values(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two arrays are equal to the bit, NaN and the sign of zero included."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return np.array_equal(np.ravel(first).view(np.uint8), np.ravel(second).view(np.uint8))
