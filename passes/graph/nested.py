"""Weights that a file keeps inside the bodies of If, Loop and Scan, or inside functions: where, under which name.

A graph that is read has them beside its own, where control flow was written out and functions were inlined, under names
that the file does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto

from .bodies import bodies
from .mapped import is_external, tensor_array
from .values import FLOATS

Nested = tuple[tuple[str, str, TensorProto], ...]  # where, in words; the name; the tensor


def nested_weights(model: onnx.ModelProto) -> Nested:
    """The float tensors with axes in bodies and functions, in the order of the file."""
    found = list(_in_bodies(model.graph.node))
    for function in model.functions:
        where = f"the function {f'{function.domain}.' if function.domain else ''}{function.name}"
        found += _placed(where, _constants(function.node))
        found += _in_bodies(function.node)
    return tuple(entry for entry in found if entry[2].dims and _is_held(entry[2]))


def _is_held(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOATS and not is_external(tensor)


def place_of(nested: Nested, name: str, values: np.ndarray) -> str | None:
    """Where the file keeps these values of a weight of the graph, whose name starts with its name there, or None."""
    for where, own, tensor in nested:
        is_named = name.startswith(own) and name != own
        if is_named and tuple(tensor.dims) == values.shape and np.array_equal(tensor_array(tensor), values):
            return where
    return None


def _in_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str, TensorProto]]:
    for node in nodes:
        for body in bodies(node):
            where = f"the body '{body.name}' of {node.op_type} '{node.name or next(iter(node.output), '')}'"
            yield from _placed(where, [*((t.name, t) for t in body.initializer), *_constants(body.node)])
            yield from _in_bodies(body.node)


def _placed(where: str, tensors: Iterable[tuple[str, TensorProto]]) -> Iterator[tuple[str, str, TensorProto]]:
    yield from ((f"'{name}' of {where}", name, tensor) for name, tensor in tensors)


def _constants(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, TensorProto]]:
    for node in nodes:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t
