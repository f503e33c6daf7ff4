"""Control flow: what the bodies of If, Loop and Scan read from the graph around them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto


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
