"""What a branch leaves behind that went entirely, said with as few nodes as possible.

x + 0, x * 1, Identity  ->  x            (x + b) + c  ->  x + (b + c)
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.bodies import captured_names
from ..graph.model import Graph, constant_values, set_constant

Array = np.ndarray
_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}  # as the second operand; of Add and Mul as the first as well
_EITHER = frozenset({"Add", "Mul"})


def simplified(graph: Graph) -> Graph:
    """The graph, or a copy in which constants in the places of tensors that nodes made are taken in, where they can be.

    The user's own nodes stay as they are, but for an Add whose constant takes another one in.
    """
    made = {output for node in graph.source.graph.node for output in node.output}
    joins = {node.output[0]: node.op_type for node in graph.source.graph.node if node.op_type in ("Concat", "Split")}
    if not any(isinstance(t, gs.Constant) and t.name in made for t in graph.gs.tensors().values()) and not any(
        node.op == "Identity" and node.outputs[0].name in joins for node in graph.gs.nodes
    ):
        return graph
    copy = graph.copy()
    for node in list(copy.gs.nodes):
        if node.op == "Identity" and node.outputs[0].name in joins:
            _bypass(copy, node, node.inputs[0])
        elif node.op in _NEUTRAL and len(node.inputs) == 2:
            _take_in(copy, node, made)
    return copy


def _take_in(graph: Graph, node: gs.Node, made: set[str]) -> None:
    """Leave a node out that adds 0 or multiplies by 1, or let it add the constant of the one before it as well."""
    positions = [i for i, t in enumerate(node.inputs) if isinstance(t, gs.Constant) and t.name in made]
    if len(positions) != 1:
        return
    constant, other = node.inputs[positions[0]], node.inputs[1 - positions[0]]
    values = constant_values(constant)
    assert values is not None, f"{constant.name} holds no numbers"
    if (values == _NEUTRAL[node.op]).all() and (node.op in _EITHER or positions == [1]):
        _bypass(graph, node, other)
    elif node.op == "Add" and len(constant.outputs) == 1:
        _add_both(graph, node, constant, other)


def _add_both(graph: Graph, node: gs.Node, constant: gs.Tensor, other: gs.Tensor) -> None:
    """X + b + c, where nobody else reads x + b."""
    before = other.inputs[0] if other.inputs else None
    if before is None or before.op != "Add" or len(other.outputs) != 1 or _is_seen(graph, other):
        return
    found = [i for i, t in enumerate(before.inputs) if constant_values(t) is not None]
    if len(found) != 1:
        return
    first, second = constant_values(before.inputs[found[0]]), constant_values(constant)
    assert first is not None
    assert second is not None
    total = (first.astype(np.float64) + second.astype(np.float64)).astype(second.dtype)
    if total.size > max(first.size, second.size):
        return
    set_constant(constant, total)
    node.inputs[next(i for i, t in enumerate(node.inputs) if t is other)] = before.inputs[1 - found[0]]
    _remove(graph, before)


def _bypass(graph: Graph, node: gs.Node, tensor: gs.Tensor) -> None:
    """Whoever reads the node's output reads that tensor; an output of the graph keeps its name."""
    output = node.outputs[0]
    if _is_seen(graph, output):
        node.op, node.attrs, node.inputs = "Identity", {}, [tensor]
        return
    for reader in list(output.outputs):
        for position, read in enumerate(reader.inputs):
            if read is output:
                reader.inputs[position] = tensor
    _remove(graph, node)


def _is_seen(graph: Graph, tensor: gs.Tensor) -> bool:
    """Whether its name is known outside the nodes' inputs: to the user, or in a body."""
    if any(tensor is output for output in graph.gs.outputs):
        return True
    return any(tensor.name in captured_names(node) for node in graph.gs.nodes)


def _remove(graph: Graph, node: gs.Node) -> None:
    node.inputs.clear()
    node.outputs.clear()
    graph.gs.nodes.remove(node)
