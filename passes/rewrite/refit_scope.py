"""A refit changes weights and biases of consumers and nothing else: to the bit, against the model that was proved."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto

from ..channels.affine import affine_consumers
from ..channels.labels import LabelledGraph
from ..graph.model import Graph, constant_tensor
from ..graph.same import different_weights, same_node, same_tensor


def outside_refit(
    labelled: LabelledGraph, cut: Graph, proved: onnx.ModelProto, refitted: onnx.ModelProto
) -> Iterator[str]:
    """Names of nodes and weights that differ from the proved model's and that no refit changes.

    And of refitted weights that are not those of the graph. cut: the refitted graph, of which `refitted` is the model.
    """
    consumers = {consumer.name for consumer in affine_consumers(labelled)}
    touched = _touched(refitted.graph, consumers)
    before = {tuple(node.output): node for node in proved.graph.node}
    for node in refitted.graph.node:
        known = before.get(tuple(node.output))
        if not (known is not None and same_node(known, node)) and id(node) not in touched:
            yield node.output[0]
    if len(refitted.graph.node) < len(proved.graph.node):
        yield "a node is gone"
    refittable = {name for node in touched.values() for name in node.input}
    refittable -= {name for node in refitted.graph.node if id(node) not in touched for name in node.input}
    changed = set(different_weights(proved.graph, refitted.graph))
    yield from changed - refittable
    held = cut.gs.tensors()
    for tensor in refitted.graph.initializer:
        constant = held.get(tensor.name)
        own = isinstance(constant, gs.Constant) and same_tensor(tensor, constant_tensor(constant))
        if tensor.name in changed & refittable and not own:
            yield tensor.name


def _touched(graph: onnx.GraphProto, consumers: set[str]) -> dict[int, NodeProto]:
    """The consumers, by identity, and the sums behind them that hold their biases."""
    makers = {name: node for node in graph.node for name in node.output}
    found = [makers[name] for name in consumers if name in makers]
    products = [makers[n] for node in found if node.op_type == "Add" for n in node.input if n in makers]
    sums = [n for n in graph.node if n.op_type == "Add" and consumers.intersection(n.input)]
    return {id(node): node for node in (*found, *products, *sums)}
