"""Functions that call themselves or grow beyond measure are refused before anything is put in the place of a call."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.model import load

OWN = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]


def function(name, *calls):
    """A function that calls these, one after the other; Relu is ONNX's own."""
    nodes = [
        helper.make_node(call, [f"t{i}"], [f"t{i + 1}"], domain="" if call == "Relu" else "my")
        for i, call in enumerate(calls)
    ]
    return helper.make_function("my", name, ["t0"], [f"t{len(calls)}"], nodes, OWN)


def model(call, *functions):
    declared = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(call, ["x"], ["y"], domain="my")], "g", declared[:1], declared[1:])
    return helper.make_model(graph, opset_imports=OWN, functions=functions, ir_version=8)


def test_functions_are_put_in_the_place_of_their_calls():
    graph = load(model("B", function("B", "A", "A"), function("A", "Relu", "Relu")))
    assert [node.op for node in graph.gs.nodes] == ["Relu"] * 4


@pytest.mark.parametrize("functions", [[function("A", "A")], [function("A", "B"), function("B", "Relu", "A")]])
def test_a_function_that_calls_itself_is_refused(functions):
    with pytest.raises(ReadError, match="calls itself"):
        load(model("A", *functions))


def test_a_function_that_stands_there_twice_is_refused():
    with pytest.raises(ReadError, match="malformed"):
        load(model("A", function("A", "Relu"), function("A", "Relu")))


def test_functions_that_double_one_another_are_refused():
    doubled = [function(f"F{i}", f"F{i - 1}", f"F{i - 1}") for i in range(1, 41)]
    with pytest.raises(ReadError, match="beyond measure"):
        load(model("F40", function("F0", "Relu"), *doubled))


def test_a_long_chain_of_functions_needs_no_recursion():
    chain = [function(f"F{i}", f"F{i - 1}") for i in range(3000, 0, -1)]
    with pytest.raises(ReadError):  # ONNX's own inliner has its own limit, or it works: neither is a crash
        load(model("F3000", *chain, function("F0", "Relu", "F3000")))
