"""What the bodies of control flow read from outside, at any depth."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.graph.bodies import bodies, captured_names, read_names, taken_names
from onnx_prune.passes.graph.model import load


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


def branching(*nodes, output, initializers=()):
    body = helper.make_graph(list(nodes), "body", [], [value(output)], list(initializers))
    return helper.make_node("If", ["c"], ["out"], then_branch=body, else_branch=body)


@pytest.fixture
def nested():
    """x and w are read from outside, k and h are the inner body's own."""
    k = numpy_helper.from_array(np.ones(2, np.float32), "k")
    inner = branching(
        helper.make_node("Add", ["x", "k"], ["h"]),
        helper.make_node("Mul", ["h", "w"], ["i"]),
        output="i",
        initializers=[k],
    )
    inner.output[0] = "j"
    return branching(inner, output="j")


def test_what_is_made_inside_is_not_read_from_outside(nested):
    assert read_names(nested) == {"c", "x", "w"}
    assert sum(1 for _ in bodies(nested)) == 2


def test_graphsurgeon_s_nodes_say_the_same_and_the_bodies_own_weights(nested):
    w = numpy_helper.from_array(np.ones(2, np.float32), "w")
    inputs = [value("x"), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    graph = helper.make_graph([nested], "g", inputs, [value("out")], [w])
    node = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)).gs.nodes[0]
    assert captured_names(node) - {"c"} == {"x", "w", "k"}
    assert set(taken_names(graph)) == {"x", "c", "w", "k", "h", "i", "j", "out"}


def test_an_operator_without_bodies_captures_nothing():
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
    node = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)).gs.nodes[0]
    assert captured_names(node) == set()
