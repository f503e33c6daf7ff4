"""A refit changes weights and biases of consumers and nothing else: to the bit, against the model that was proved."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto

from ..channels.affine import affine_consumers
from ..channels.extras import is_offsets
from ..channels.labels import LabelledGraph
from ..graph.mapped import tensor_array
from ..graph.model import Graph, constant_values
from ..graph.same import different_weights, same_node, same_values


def outside_refit(
    labelled: LabelledGraph, cut: Graph, proved: onnx.ModelProto, refitted: onnx.ModelProto
) -> Iterator[str]:
    """Names of nodes and weights that differ from the proved model's and that no refit changes.

    And of refitted weights that are not those of the graph. cut: the refitted graph, of which `refitted` is the model.
    """
    consumers = {use for consumer in affine_consumers(labelled) for use in consumer.uses}
    touched = _touched(refitted.graph, consumers)
    refittable = {name for node in touched.values() for name in node.input}
    refittable -= {name for node in refitted.graph.node if id(node) not in touched for name in node.input}
    refittable |= _standing(cut, refitted.graph)
    refittable |= {t.name for t in refitted.graph.initializer if is_offsets(t.name)}
    before = {tuple(node.output): node for node in proved.graph.node}
    changed = set(different_weights(proved.graph, refitted.graph))
    for node in refitted.graph.node:
        known = before.pop(tuple(node.output), None)
        if known is not None and same_node(known, node):
            continue
        if node.op_type == "Constant":
            changed.add(node.output[0])
        elif id(node) not in touched:
            yield node.output[0]
    yield from (outputs[0] for outputs in before if outputs[0] not in consumers)
    yield from changed - refittable
    held = dict(_constants(refitted.graph))
    for name in changed & refittable & held.keys():
        values = constant_values(cut.gs.tensors()[name])
        if values is None or not same_values(values, tensor_array(held[name])):
            yield name


def _standing(cut: Graph, graph: onnx.GraphProto) -> set[str]:
    """Weights in the places of tensors that nodes of the original made: what stands for branches that went."""
    made = {name for node in cut.source.graph.node if node.op_type != "Constant" for name in node.output}
    return made.intersection(tensor.name for tensor in graph.initializer)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    yield from ((n.output[0], n.attribute[0].t) for n in graph.node if n.op_type == "Constant" and n.attribute)


def _touched(graph: onnx.GraphProto, consumers: set[str]) -> dict[int, NodeProto]:
    """The consumers, by identity, the sums behind them that hold their biases, and what dequantises their weights."""
    makers = {name: node for node in graph.node for name in node.output}
    found = [makers[name] for name in consumers if name in makers]
    products = [makers[n] for node in found if node.op_type == "Add" for n in node.input if n in makers]
    sums = [n for n in graph.node if n.op_type == "Add" and consumers.intersection(n.input)]
    stored = {name for name, _ in _constants(graph)}
    weights = [makers[n] for node in (*found, *products) for n in node.input[1:] if n in makers]
    scaled = [n for n in weights if n.op_type == "DequantizeLinear" and n.input[0] in stored]
    return {id(node): node for node in (*found, *products, *sums, *scaled)}
