"""Rounding errors as a run might have had them: in inputs, weights, sums and activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...passes.graph.values import FLOATS, float_types

Array = np.ndarray
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Activations that are computed with an error of a rounding step of 1, however small the result.
_BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softmax"})
_ULP = 2.0**-24
_PREFIX = "onnx_prune.rounded."


def rounded(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The model with float weights moved by a rounding step, or what meets those in a file; bounded activations too."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.data_type in FLOATS and len(tensor.dims) > 1 and tensor.data_location != TensorProto.EXTERNAL:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(moved(values, rng, _of_sum(tensor)), tensor.name))
    if {TensorProto.FLOAT}.issuperset(float_types(model.graph)):
        _move_activations(changed.graph, rng)
    return changed


def _move_activations(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Move what meets weights in a file by a rounding step of each number, and bounded activations by one of 1.

    Near 0 a bounded activation is as wrong as near 1.
    """
    in_file = {t.name: t for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}
    nodes = []
    for number, node in enumerate(list(graph.node)):
        if not node.domain and node.op_type in _PRODUCTS and node.input[0] not in in_file and node.input[1] in in_file:
            name, stem = node.input[0], f"{_PREFIX}moved.{number}"
            far = 2 * _ULP * _of_sum(in_file[node.input[1]])
            drawn: dict[str, Any] = {"low": -far, "high": far, "seed": float(rng.integers(1 << 20))}
            nodes.append(helper.make_node("RandomUniformLike", [name], [f"{stem}.share"], **drawn))
            nodes.append(helper.make_node("Mul", [name, f"{stem}.share"], [f"{stem}.step"]))
            nodes.append(helper.make_node("Add", [name, f"{stem}.step"], [stem]))
            node.input[0] = stem
        nodes.append(node)
        if node.op_type in _BOUNDED and not node.domain:
            name, step = node.output[0], f"{_PREFIX}step.{node.output[0]}"
            node.output[0] = f"{_PREFIX}exact.{name}"
            graph.initializer.append(numpy_helper.from_array(np.array(rng.choice([-1, 1]) * _ULP, np.float32), step))
            nodes.append(helper.make_node("Add", [node.output[0], step], [name]))
    del graph.node[:]
    graph.node.extend(nodes)


def _of_sum(weight: onnx.TensorProto) -> int:
    """Rounding steps for each of the n terms of a sum, of which the partial sums are rounded too: about sqrt(n) / 8."""
    return max(1, round(math.sqrt(math.prod(weight.dims[1:])) / 8))


def moved(array: Array, rng: np.random.Generator, steps: int) -> Array:
    """Floats a few rounding steps away; zeros, which may be masks, stay."""
    if array.dtype.kind not in "fV" or array.dtype.names:
        return array
    eps = {2: 2**-11, 4: 2**-24, 8: 2**-53}[array.dtype.itemsize]
    eps = 2**-8 if array.dtype.kind == "V" else eps
    kind = np.float32 if array.dtype.itemsize < 8 else np.float64
    far = rng.integers(-steps, steps + 1, array.shape, np.int16).astype(kind)
    far *= kind(2 * eps)
    far += 1  # exact in single precision too: a few steps from 1
    far *= array.astype(kind, copy=False)
    return np.asarray(far, array.dtype)
