"""A network as it was before any training: the weights of its layers drawn anew, its normalisations the identity.

Weights of convolutions and matrix products: normal, of variance 2 / fan-in. Source: He, Zhang, Ren, Sun, Delving deep
into rectifiers, ICCV 2015, eq. 10. Biases are zero; BatchNormalization has scale 1, bias 0, mean 0, variance 1.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from .batch_norm import stored_tensors

_PLAIN = {1: 1.0, 2: 0.0, 3: 0.0, 4: 1.0}  # inputs of BatchNormalization: scale, bias, mean, variance


def drawn_anew(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same graph with other values; what is no weight of a layer (images' means, embeddings) stays as it is."""
    drawn = onnx.ModelProto()
    drawn.CopyFrom(model)
    stored, done = dict(stored_tensors(drawn.graph)), set()
    rng = np.random.default_rng(seed)
    for node in drawn.graph.node:
        for position, name in enumerate(node.input):
            tensor = stored.get(name)
            if position and tensor is not None and name not in done:
                values = _values(node, position, tensor, rng)
                if values is not None:
                    done.add(name)
                    _put(tensor, values)
    return drawn


def _values(node: NodeProto, position: int, tensor: TensorProto, rng: np.random.Generator) -> np.ndarray | None:
    """What that input of the node starts from; None where it stays."""
    if node.op_type == "BatchNormalization":
        return np.full(tensor.dims, _PLAIN[position])
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    if position > 1:
        return np.zeros(tensor.dims)
    return rng.normal(0, math.sqrt(2 / _fan_in(node, tuple(tensor.dims))), tensor.dims)


def _fan_in(node: NodeProto, shape: tuple[int, ...]) -> int:
    """How many products each output sums up."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attributes.get("transB", 0)):
        return max(math.prod(shape[1:]), 1)
    if node.op_type == "ConvTranspose":
        return max(math.prod(shape) // max(shape[1], 1) // int(attributes.get("group", 1)), 1)
    return max((*shape, 1)[-3 if len(shape) > 1 else 0], 1)


def _put(tensor: TensorProto, values: np.ndarray) -> None:
    fresh = numpy_helper.from_array(values.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)), tensor.name)
    tensor.CopyFrom(fresh)
