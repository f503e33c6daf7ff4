"""Quantised activations without the rounding: the same scale and the same limits, and nothing that turns on a tie.

A sum whose terms are added in another order differs by a rounding error of float32. Where it is quantised next, a value
beside a tie goes to the next step: a difference of 1/255 of the range, which later layers make larger. So a cut model
may differ from its original although both are right. Without the rounding a quantised and dequantised activation is

    DequantizeLinear(QuantizeLinear(x)) = min(max(x, (lowest - zero) * scale), (highest - zero) * scale)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...graph.bodies import read_names, taken_names
from ...graph.mapped import tensor_array
from ...graph.names import Names

_LIMITS: dict[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}
_SUFFIX = ".unrounded"


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose quantised activations are limited and not rounded; the model itself where none can be.

    Of one scale for all channels alone: a cut changes none of their numbers. Pairs of nodes go, no weight does.
    """
    stored = {t.name: t for t in model.graph.initializer}
    pairs = _pairs(model, stored)
    if not pairs:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = Names(taken_names(model.graph))
    for number, (quantised, readers) in pairs.items():
        node = model.graph.node[number]
        low, high = (_limit(stored, node, end, names) for end in (0, 1))
        changed.graph.initializer.extend([low, high])
        at_least = names.fresh(f"{quantised}{_SUFFIX}")
        changed.graph.node[number].CopyFrom(helper.make_node("Max", [node.input[0], low.name], [at_least]))
        for reader in readers:
            output = model.graph.node[reader].output[0]
            changed.graph.node[reader].CopyFrom(helper.make_node("Min", [at_least, high.name], [output]))
    return changed


def _pairs(model: onnx.ModelProto, stored: Mapping[str, TensorProto]) -> dict[int, tuple[str, list[int]]]:
    """Number of a QuantizeLinear -> its output, and the numbers of the DequantizeLinear that alone read it."""
    nodes = model.graph.node
    reads = Counter(name for node in nodes for name in read_names(node))
    reads.update(value.name for value in model.graph.output)
    readers: dict[str, list[int]] = {}
    for number, node in enumerate(nodes):
        if node.op_type == "DequantizeLinear":
            readers.setdefault(node.input[0], []).append(number)
    found = {}
    for number, node in enumerate(nodes):
        if node.op_type != "QuantizeLinear" or node.input[0] in stored or not _is_simple(node, stored):
            continue
        own = readers.get(node.output[0], [])
        if own and len(own) == reads[node.output[0]] and all(_same(nodes[i], node, stored) for i in own):
            found[number] = (node.output[0], own)
    return found


def _is_simple(node: onnx.NodeProto, stored: Mapping[str, TensorProto]) -> bool:
    """Whether one stored scale, of float32, and one stored zero point serve all numbers."""
    parameters = [stored.get(name) for name in node.input[1:]]
    if not all(t is not None and np.prod(t.dims) == 1 for t in parameters):
        return False
    if stored[node.input[1]].data_type != TensorProto.FLOAT:
        return False
    if len(parameters) == 1:
        return not any(attribute.name == "output_dtype" for attribute in node.attribute)
    return stored[node.input[2]].data_type in _LIMITS


def _same(one: onnx.NodeProto, other: onnx.NodeProto, stored: Mapping[str, TensorProto]) -> bool:
    """Whether both have the same scale and zero point."""
    pair = [[tensor_array(stored[name]).ravel() for name in node.input[1:] if name in stored] for node in (one, other)]
    return len(one.input) == len(other.input) and all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(*pair, strict=True)
    )


def _limit(stored: Mapping[str, TensorProto], node: onnx.NodeProto, end: int, names: Names) -> TensorProto:
    """What the lowest (0) or highest (1) step stands for, ()."""
    zero = tensor_array(stored[node.input[2]]).ravel()[0] if len(node.input) > 2 else np.uint8(0)
    kind = stored[node.input[2]].data_type if len(node.input) > 2 else TensorProto.UINT8
    scale = tensor_array(stored[node.input[1]]).ravel()[0]
    value = np.float32((_LIMITS[kind][end] - int(zero)) * scale)
    return numpy_helper.from_array(np.array(value), names.fresh(f"{node.output[0]}{('.low', '.high')[end]}"))
