"""Models that draw random numbers, with a seed for each node: two models that draw alike can be compared.

ONNX Runtime seeds a node that has no seed by its number among the nodes, or from one generator of the process, so that
a cut model, or the same one run again, draws other numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import onnx
from onnx import helper

from ...graph.bodies import nodes_inside
from ...graph.folding import RANDOM

_DRAWING = RANDOM | {"Dropout"}
_SEEDS = 1 << 20  # float32, in which most of these operators give their seed, holds them all


def draws_anew(graph: onnx.GraphProto) -> bool:
    """Whether a node, in a branch or loop too, may draw random numbers and has no seed."""
    return any(True for _ in _unseeded(graph))


def seeded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each of these nodes has a seed, by its output's name; the model itself where none lacks one."""
    if not draws_anew(model.graph):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in _unseeded(changed.graph):
        seed = zlib.crc32(node.output[0].encode()) % _SEEDS
        node.attribute.append(helper.make_attribute("seed", seed if node.op_type == "Dropout" else float(seed)))
    return changed


def _unseeded(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in nodes_inside(graph.node):
        if node.domain or node.op_type not in _DRAWING or any(a.name == "seed" for a in node.attribute):
            continue
        if node.op_type != "Dropout" or len(node.input) > 2:  # in training mode, which is an input since opset 12
            yield node
