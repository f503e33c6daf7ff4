"""Integer products with unsigned weights: the same numbers, without the sums that saturate on some processors.

ONNX Runtime multiplies unsigned activations by signed weights with an instruction that sums pairs in 16 bits, where the
processor has no better one (x86 before VNNI): 2 * 255 * 127 does not fit. So results depend on which channels stand
side by side, and a cut model may differ from its original although both are right. Shifted by 128, together with their
zero point, weights are unsigned, and for those there is an exact product: (w + 128) - (z + 128) = w - z.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..graph.mapped import tensor_array

# Where an integer product reads its weight and the weight's zero point.
_PRODUCTS = {
    "QLinearConv": (3, 5),
    "ConvInteger": (1, 3),
    "QLinearMatMul": (3, 5),
    "MatMulInteger": (1, 3),
    "QGemm": (3, 5),
}
_DATA_ZERO = 2  # and the zero point of the data, which has their type
_SHIFT = 128
_SUFFIX = ".unsigned"


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose products of unsigned data read unsigned weights; the model itself where none reads signed ones."""
    signed = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.INT8}
    unsigned = {t.name for t in model.graph.initializer if t.data_type == TensorProto.UINT8}
    unsigned |= {node.output[2] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"}
    found = [i for i, node in enumerate(model.graph.node) if _is_mixed(node, signed, unsigned)]
    if not found:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    made: dict[str, TensorProto] = {}
    for index in found:
        node = changed.graph.node[index]
        weight, zero = _PRODUCTS[node.op_type]
        node.input.extend([""] * (zero + 1 - len(node.input)))
        values = {node.input[weight]: tensor_array(signed[node.input[weight]])}
        name = node.input[zero] or _SUFFIX
        values[name] = tensor_array(signed[name]) if name in signed else np.zeros((), np.int8)
        for name, array in values.items():
            shifted = (array.astype(np.int16) + _SHIFT).astype(np.uint8)
            made[name] = numpy_helper.from_array(shifted, f"{name}{_SUFFIX}")
        node.input[weight], node.input[zero] = (f"{name}{_SUFFIX}" for name in values)
    changed.graph.initializer.extend(made.values())
    return changed


def _is_mixed(node: onnx.NodeProto, signed: Collection[str], unsigned: Collection[str]) -> bool:
    """Whether the node multiplies unsigned data by a signed constant whose zero point is known."""
    if node.op_type not in _PRODUCTS or len(node.input) <= _DATA_ZERO or node.input[_DATA_ZERO] not in unsigned:
        return False
    weight, zero = _PRODUCTS[node.op_type]
    zero_name = node.input[zero] if zero < len(node.input) else ""
    return node.input[weight] in signed and (not zero_name or zero_name in signed)
