"""Loops that nothing ends are refused by what is written in them; loops that end themselves are not."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.bodies import MOST_ROUNDS, check_loops

node, value = helper.make_node, helper.make_tensor_value_info


def graph(rounds, first, again, *, inside=False):
    """s is doubled in a Loop; again: the nodes that make the condition `more` of the next round."""
    body = helper.make_graph(
        [node("Add", ["v", "v"], ["w"]), *again],
        "body",
        [value("i", 7, []), value("go", 9, []), value("v", 1, [1])],
        [value("more", 9, []), value("w", 1, [1])],
    )
    loop = node("Loop", ["rounds" if rounds is not None else "", first, "s"], ["y"], body=body)
    held = {"rounds": np.int64(rounds or 0), "yes": np.array(True), "s": np.ones(1, np.float32)}
    nodes = [loop]
    if inside:
        branch = helper.make_graph([loop], "branch", [], [value("y", 1, [1])])
        nodes = [node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = [value("x", 9, [])]
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()]
    return helper.make_graph(nodes, "g", inputs, [value("y", 1, [1])], weights)


SAME = [node("Identity", ["go"], ["more"])]
TRUE = [node("Constant", [], ["more"], value=numpy_helper.from_array(np.array(True)))]
COMPUTED = [node("Not", ["go"], ["more"])]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("again", [SAME, TRUE], ids=["the same", "true"])
@pytest.mark.parametrize(("rounds", "first"), [(1 << 62, "yes"), (MOST_ROUNDS + 1, ""), (None, "yes")])
def test_a_loop_without_end_is_refused(rounds, first, again, inside):
    with pytest.raises(ReadError, match="a loop of the model has"):
        check_loops(graph(rounds, first, again, inside=inside))


@pytest.mark.parametrize(
    ("rounds", "first", "again"),
    [(1000, "yes", SAME), (2**63 - 1, "yes", COMPUTED), (2**63 - 1, "x", SAME), (None, "yes", COMPUTED)],
)
def test_a_loop_that_ends_is_not(rounds, first, again):
    check_loops(graph(rounds, first, again))


@pytest.mark.parametrize(("rounds", "refused"), [(1 << 10, False), (1 << 13, True)])
def test_rounds_of_a_loop_in_a_loop_are_multiplied(rounds, refused):
    inner = graph(rounds, "yes", SAME).node[0]
    inner.input[2] = "u"
    inner.output[0] = "w"
    body = helper.make_graph(
        [inner, node("Identity", ["go0"], ["more0"])],
        "outer",
        [value("i0", 7, []), value("go0", 9, []), value("u", 1, [1])],
        [value("more0", 9, []), value("w", 1, [1])],
    )
    outer = graph(rounds, "yes", SAME)
    outer.node[0].attribute[0].g.CopyFrom(body)
    with pytest.raises(ReadError, match=f"has {rounds**2} rounds") if refused else contextlib.nullcontext():
        check_loops(outer)


def test_a_computed_count_is_looked_at_where_it_is_known():
    computed = graph(None, "yes", SAME)
    computed.node[0].input[0] = "count"
    check_loops(computed)
    check_loops(computed, {"count": np.int64(1000)})
    with pytest.raises(ReadError, match="has 4611686018427387904 rounds"):
        check_loops(computed, {"count": np.int64(1 << 62)})
