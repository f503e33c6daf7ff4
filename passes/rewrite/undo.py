"""Edits of a graph that are taken back, where a copy for each of many variants would cost more than running them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import onnx_graphsurgeon as gs

from ..graph.model import Graph


@contextmanager
def undone(graph: Graph) -> Generator[Graph]:
    """The graph, to be edited: its nodes, what they read and make, and all constants are put back at the end.

    Undone is what `set_constant` does, and nodes and tensors that are put in, taken out or exchanged; other attributes
    of nodes are not looked at.
    """
    nodes = list(graph.gs.nodes)
    wires = [(node, list(node.inputs), list(node.outputs)) for node in nodes]
    attributes = [(node, dict(node.attrs)) for node in nodes if node.op == "Constant"]
    constants = {id(t): t for _, inputs, _ in wires for t in inputs if isinstance(t, gs.Constant)}
    held = [(constant, constant._values) for constant in constants.values()]
    try:
        yield graph
    finally:
        known = set(map(id, nodes))
        for node in graph.gs.nodes:
            if id(node) not in known:
                node.inputs.clear()
                node.outputs.clear()
        graph.gs.nodes[:] = nodes
        for node, inputs, outputs in wires:
            if not _same(node.inputs, inputs):
                node.inputs = inputs
            if not _same(node.outputs, outputs):
                node.outputs = outputs
        for node, attrs in attributes:
            node.attrs.clear()
            node.attrs.update(attrs)
        for constant, values in held:
            constant._values = values


def _same(one: Sequence[gs.Tensor], other: Sequence[gs.Tensor]) -> bool:
    """Whether these are the very same tensors: graphsurgeon's == compares names."""
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
