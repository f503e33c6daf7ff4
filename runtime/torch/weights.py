"""Which stored floats are trained: weights, biases, scales and tables; not what a formula or a mask needs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from ...passes.graph.mapped import tensor_array
from ...passes.graph.values import FLOATS
from ...passes.rewrite.batch_norm import stored_tensors
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
    "FusedConv": (1, 2),
    "FusedGemm": (0, 1, 2),
    "FusedMatMul": (0, 1),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
}
_STATISTICS = (3, 4)  # where BatchNormalization reads its running mean and variance
_FORMULA = {"ScatterND": (1, 2), "ScatterElements": (1, 2)}  # what is written into a mask or a table
_ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Div", "Cast", "Transpose", "Identity", "Unsqueeze"])
_MOVES = frozenset(
    ["Cast", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"]
)
_MASK = 1.0  # the smallest value that masks


@dataclass(frozen=True)
class Weights:
    """What is stored, by name; the names that are trained, and those that are running statistics."""

    stored: dict[str, onnx.TensorProto]
    trained: tuple[str, ...]
    statistics: tuple[str, ...]


def weights(graph: onnx.GraphProto) -> Weights:
    """Sort the stored tensors of a graph.

    Trained is a float that a weighted operator reads as its weight, bias or scale. Of the others (biases that are
    added, layer scales, embeddings) those of more than one element are trained that stand where the exporter keeps
    weights (initializers, or Constant nodes), in front of a weighted operator if they are more than a vector (anchors
    are behind), and that are neither masks nor arithmetic on the input.
    """
    stored = dict(stored_tensors(graph))
    roots = _roots(graph, stored)
    weighty, others, statistics = _readings(graph, roots)
    initial = {tensor.name for tensor in graph.initializer}
    sizes = {name: math.prod(stored[name].dims) for name in weighty}
    usual = 2 * sum(sizes[name] for name in weighty & initial) >= sum(sizes.values())  # weights are initializers here
    excluded = _preparation(graph, roots)
    ahead = _ahead(graph, roots)

    def trains(name: str) -> bool:
        tensor = stored[name]
        if tensor.data_type not in FLOATS or name in statistics or name in excluded:
            return False
        home = (name in initial) == usual
        if name in weighty:
            return home or not _is_uniform(tensor)
        wide = [n for n in tensor.dims if n > 1]
        placed = home and (len(wide) == 1 or name in ahead)
        return name in others and bool(wide) and placed and not _is_mask(tensor)

    return Weights(stored, tuple(name for name in stored if trains(name)), tuple(statistics))


def _roots(graph: onnx.GraphProto, stored: Collection[str]) -> dict[str, str]:
    """Tensor -> the stored one whose elements it holds, moved at most."""
    roots = {name: name for name in stored}
    for node in graph.node:
        if node.op_type in _MOVES and all(name in roots for name in node.input if name):
            roots.update((name, roots[node.input[0]]) for name in node.output)
    return roots


def _readings(graph: onnx.GraphProto, roots: Mapping[str, str]) -> tuple[set[str], set[str], dict[str, None]]:
    """Stored tensors that are read as weights, as other data, and as running statistics."""
    weighty: set[str] = set()
    others: set[str] = set()
    statistics: dict[str, None] = {}
    for node in graph.node:
        operator = find_operator(node)
        if node.output and node.output[0] in roots:
            continue
        for position, name in enumerate(roots.get(name, "") for name in node.input):
            if not name:
                continue
            if node.op_type == "BatchNormalization" and position in _STATISTICS:
                statistics[name] = None
            elif position in _WEIGHTS.get(node.op_type, ()):
                weighty.add(name)
            elif position not in _FORMULA.get(node.op_type, ()) and not (operator and operator.on_host(position)):
                others.add(name)
    return weighty, others, statistics


def _preparation(graph: onnx.GraphProto, roots: Mapping[str, str]) -> set[str]:
    """Stored tensors that meet the input itself: means and deviations of the images."""
    raw = {value.name for value in graph.input if value.name not in roots}
    found: set[str] = set()
    for node in graph.node:
        known = node.op_type in _ARITHMETIC and all(name in raw or name in roots for name in node.input)
        if known and not raw.isdisjoint(node.input):
            raw.update(node.output)
            found.update(roots[name] for name in node.input if name in roots)
    return found


def _ahead(graph: onnx.GraphProto, roots: Mapping[str, str]) -> set[str]:
    """Tensors from which a way leads into an operator with weights."""
    ahead: set[str] = set()
    for node in reversed(graph.node):
        positions = _WEIGHTS.get(node.op_type, ())
        weighted = any(p < len(node.input) and node.input[p] in roots for p in positions)
        if weighted or not ahead.isdisjoint(node.output):
            ahead.update(node.input)
    return ahead


def _is_uniform(tensor: onnx.TensorProto) -> bool:
    """All ones or all zeros: a normalisation that an exporter wrote out."""
    values = tensor_array(tensor).ravel()
    return bool(values.size) and not (values != values[0]).any()


def _is_mask(tensor: onnx.TensorProto) -> bool:
    """Two values, zero and a large one: an attention mask."""
    values = tensor_array(tensor).ravel()
    first = values[0]
    others = values[values != first]
    if not others.size or (others != others[0]).any():
        return False
    pair = sorted(abs(float(v)) for v in (first, others[0]))
    return pair[0] == 0 and pair[1] >= _MASK
