"""Loops that would run for ages: refused by what is written in the graph, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto, numpy_helper

from ..errors import ReadError
from .bodies import bodies

MOST_ROUNDS = 1 << 24  # of a loop that ends by its count alone


def check_loops(graph: onnx.GraphProto) -> None:
    """Raise ReadError for a Loop that nothing ends, or only a count of rounds beyond MOST_ROUNDS.

    Loops whose condition is computed are passed over: exporters write the largest number as the count of a `while`.
    """
    for node, held in _nodes(graph, {}):
        if node.op_type == "Loop" and len(node.input) > 1 and _goes_on(node, held):
            count = held.get(node.input[0])
            rounds = None if count is None else int(numpy_helper.to_array(count).reshape(-1)[0])
            if not node.input[0] or (rounds is not None and rounds > MOST_ROUNDS):
                raise ReadError(
                    f"a loop of the model has {'no end' if rounds is None else f'{rounds} rounds'}",
                    where=f"{graph.name}: Loop '{node.output[0] if node.output else node.name}'",
                    fix="export the model again with the loop unrolled, or prune the part without it",
                )


def _nodes(
    graph: onnx.GraphProto, around: Mapping[str, TensorProto]
) -> Iterator[tuple[onnx.NodeProto, Mapping[str, TensorProto]]]:
    """Every node, those of bodies too, with the constants that it can read."""
    held = {**around, **_constants(graph)}
    for node in graph.node:
        yield node, held
        for body in bodies(node):
            yield from _nodes(body, held)


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    held = {tensor.name: tensor for tensor in graph.initializer}
    made = [node for node in graph.node if node.op_type == "Constant" and node.attribute and node.output]
    return held | {node.output[0]: node.attribute[0].t for node in made if node.attribute[0].HasField("t")}


def _goes_on(node: onnx.NodeProto, held: Mapping[str, TensorProto]) -> bool:
    """Whether its condition is true in every round, whatever the data are."""
    body = next(bodies(node), None)
    if body is None or not body.output or len(body.input) < 2:
        return False
    first = not node.input[1] or _is_true(held.get(node.input[1]))
    makers = {output: inner for inner in body.node for output in inner.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return first and (name == body.input[1].name or _is_true({**held, **_constants(body)}.get(name)))


def _is_true(tensor: TensorProto | None) -> bool:
    return tensor is not None and bool(numpy_helper.to_array(tensor).all())
