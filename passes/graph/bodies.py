"""Control flow: what the bodies of If, Loop and Scan read from the graph around them, and loops without end.

And the weights that a file keeps inside bodies and functions: a graph that is read has them beside its own, where
control flow was written out and functions were inlined, under names that the file does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TensorProto, numpy_helper

from ..errors import ReadError
from .mapped import is_external, tensor_array

Nested = tuple[tuple[str, str, TensorProto], ...]  # where, in words; the name; the tensor
MOST_ROUNDS = 1 << 24  # of a loop that ends by its count alone


def captured_names(node: gs.Node) -> set[str]:
    """Names of tensors that the bodies of a node read without making them; none for other operators.

    Weights that a body brings along are among them: graphsurgeon does not tell them from those of the graph around it.
    """
    names: set[str] = set()
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            own = {t.name for t in value.inputs} | {o.name for n in value.nodes for o in n.outputs}
            read = {t.name for n in value.nodes for t in n.inputs} | {t.name for t in value.outputs}
            for inner in value.nodes:
                read |= captured_names(inner)
            names |= read - own
    names.discard("")
    return names


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of a node."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def nodes_inside(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes, and those of the bodies in them, however deep."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from nodes_inside(body.node)


def read_names(node: onnx.NodeProto) -> set[str]:
    """Names of tensors of the graph around a node that it reads, those that its bodies capture included."""
    names = {name for name in node.input if name}
    for body in bodies(node):
        own = {t.name for t in [*body.input, *body.initializer]} | {o for n in body.node for o in n.output}
        read = {value.name for value in body.output}.union(*(read_names(inner) for inner in body.node))
        names |= read - own
    return names


def taken_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of all tensors of a graph and of the bodies in it."""
    yield from (tensor.name for tensor in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from (*node.input, *node.output)
        for body in bodies(node):
            yield from taken_names(body)


def check_loops(graph: onnx.GraphProto, known: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
    """Raise ReadError for a Loop that nothing ends, or only a count of rounds beyond MOST_ROUNDS, loops in it included.

    known: numbers of tensors that are computed, by name. Loops whose condition is computed are passed over: exporters
    write the largest number as the count of a `while`.
    """
    loops = [node for node in graph.node if next(bodies(node), None) is not None] if known else []
    computed = {name: known[name] for node in loops for name in read_names(node) if name in known}
    _check_loops(graph, {name: numpy_helper.from_array(array) for name, array in computed.items()}, graph.name, 1)


def _check_loops(graph: onnx.GraphProto, around: Mapping[str, TensorProto], model: str, times: int) -> None:
    """around: constants that the graph can read; times: how often it runs, as far as that is known."""
    held = {**around, **constants_of(graph)}
    for node in graph.node:
        rounds: int | None = 1
        if node.op_type == "Loop" and len(node.input) > 1 and goes_on(node, held):
            count = held.get(node.input[0])
            rounds = None if count is None else int(numpy_helper.to_array(count).reshape(-1)[0])
            if not node.input[0] or (rounds is not None and rounds * times > MOST_ROUNDS):
                raise ReadError(
                    f"a loop of the model has {'no end' if rounds is None else f'{rounds * times} rounds'}",
                    where=f"{model}: Loop '{node.output[0] if node.output else node.name}'",
                    fix="export the model again with the loop unrolled, or prune the part without it",
                )
        for body in bodies(node):
            _check_loops(body, held, model, times * max(rounds or 1, 1))


def constants_of(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """The initializers and what Constant nodes hold, by name."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    made = [node for node in graph.node if node.op_type == "Constant" and node.attribute and node.output]
    return held | {node.output[0]: node.attribute[0].t for node in made if node.attribute[0].HasField("t")}


def goes_on(node: onnx.NodeProto, held: Mapping[str, TensorProto]) -> bool:
    """Whether its condition is true in every round, whatever the data are."""
    body = next(bodies(node), None)
    if body is None or not body.output or len(body.input) < 2:
        return False
    first = not node.input[1] or _is_true(held.get(node.input[1]))
    makers = {output: inner for inner in body.node for output in inner.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return first and (name == body.input[1].name or _is_true({**held, **constants_of(body)}.get(name)))


def _is_true(tensor: TensorProto | None) -> bool:
    return tensor is not None and bool(numpy_helper.to_array(tensor).all())


def nested_weights(model: onnx.ModelProto) -> Nested:
    """The tensors with axes in bodies and functions, in the order of the file."""
    found = list(_in_bodies(model.graph.node))
    for function in model.functions:
        where = f"the function {f'{function.domain}.' if function.domain else ''}{function.name}"
        found += _placed(where, _constants(function.node))
        found += _in_bodies(function.node)
    return tuple(entry for entry in found if entry[2].dims and not is_external(entry[2]))


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
