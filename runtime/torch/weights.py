"""Which stored floats are trained: weights, biases, scales and tables; not what a formula or a mask needs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from ...passes.batch_norm import stored_tensors
from .dtypes import FLOATS
from .operators import find_operator

# Operator -> the positions at which it reads weights, whatever their size.
_WEIGHTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "SimplifiedLayerNormalization": (1,),
    "RMSNormalization": (1,),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}
_STATISTICS = (3, 4)  # where BatchNormalization reads its running mean and variance
_MASK = 2  # distinct values of a mask: kept and masked


@dataclass(frozen=True)
class Weights:
    """What is stored, by name; the names that are trained, and those that are running statistics."""

    stored: dict[str, onnx.TensorProto]
    trained: tuple[str, ...]
    statistics: tuple[str, ...]


def weights(graph: onnx.GraphProto) -> Weights:
    """Sort the stored tensors of a graph.

    Trained is a float that a weighted operator reads as its weight, bias or scale, and any other of more than one
    element that is no mask and that an operator reads as data.
    """
    stored = dict(stored_tensors(graph))
    read: set[str] = set()
    weighty: set[str] = set()
    statistics: dict[str, None] = {}
    for node in graph.node:
        operator = find_operator(node)
        for position, name in enumerate(node.input):
            if name not in stored:
                continue
            if node.op_type == "BatchNormalization" and position in _STATISTICS:
                statistics[name] = None
            elif position in _WEIGHTS.get(node.op_type, ()):
                weighty.add(name)
            elif operator is None or not operator.on_host(position):
                read.add(name)
    trained = (
        name
        for name, tensor in stored.items()
        if tensor.data_type in FLOATS
        and name not in statistics
        and (name in weighty or (name in read and _size(tensor) > 1 and not _is_mask(tensor)))
    )
    return Weights(stored, tuple(trained), tuple(statistics))


def _size(tensor: onnx.TensorProto) -> int:
    size = 1
    for n in tensor.dims:
        size *= n
    return size


def _is_mask(tensor: onnx.TensorProto) -> bool:
    """Two values, zero and a large one: an attention mask."""
    values = numpy_helper.to_array(tensor).ravel()
    first = values[0]
    others = values[values != first]
    if not others.size or (others != others[0]).any():
        return False
    pair = sorted(abs(float(v)) for v in (first, others[0]))
    return pair[0] == 0 and pair[1] >= 1
