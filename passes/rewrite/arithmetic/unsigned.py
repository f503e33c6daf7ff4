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

from ...graph.bodies import taken_names
from ...graph.mapped import tensor_array
from ...graph.names import Names

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
    mixed = [i for i, node in enumerate(model.graph.node) if _is_mixed(node, signed, unsigned)]
    if not mixed:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = Names(taken_names(model.graph))
    shifted: dict[str, TensorProto] = {}
    for index in mixed:
        node = changed.graph.node[index]
        weight, zero = _PRODUCTS[node.op_type]
        node.input.extend([""] * (zero + 1 - len(node.input)))
        for position in (weight, zero):
            name = node.input[position]
            if name not in shifted:
                values = tensor_array(signed[name]) if name else np.zeros((), np.int8)
                array = (values.astype(np.int16) + _SHIFT).astype(np.uint8)
                shifted[name] = numpy_helper.from_array(array, names.fresh(f"{name}{_SUFFIX}"))
            node.input[position] = shifted[name].name
    changed.graph.initializer.extend(shifted.values())
    return changed


def _is_mixed(node: onnx.NodeProto, signed: Collection[str], unsigned: Collection[str]) -> bool:
    """Whether the node multiplies unsigned data by a signed constant whose zero point is known."""
    if node.op_type not in _PRODUCTS or len(node.input) <= _DATA_ZERO or node.input[_DATA_ZERO] not in unsigned:
        return False
    weight, zero = _PRODUCTS[node.op_type]
    zero_name = node.input[zero] if zero < len(node.input) else ""
    return node.input[weight] in signed and (not zero_name or zero_name in signed)
