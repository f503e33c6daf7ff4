"""Shapes and small numbers of a graph, for one choice of its input sizes."""

from __future__ import annotations

import pytest
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import MOST_ENTRIES, input_shapes, sizes_fit, tensor_facts

COMPUTED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, H, 4] x) => (float[N, P] y)
    <float[6, 3, 1, 1] w, int64 zero = {0}, int64[1] first = {0}, int64[1] rest = {-1}, float[4] flat> {
      a = Conv (x, w)
      s = Shape (a)
      n = Gather (s, zero)
      u = Unsqueeze (n, first)
      t = Concat <axis = 0> (u, rest)
      y = Reshape (a, t)
    }
    """
UNKNOWN = """
    <ir_version: 8, opset_import: ["": 17, "acme": 1]>
    g (float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) <float[1, 3, 4, 4] declared> {
      a = acme.Blur (x)
      b = Relu (a)
      declared = acme.Blur (b)
      y = Relu (declared)
    }
    """


def facts_of(graphs, text, **settings):
    return tensor_facts(load(graphs.parse(text)), **settings)


def test_a_computed_target_is_followed(graphs):
    facts = facts_of(graphs, COMPUTED, sizes={"x": (2, 3, 5, 4)})
    assert facts.shapes["a"] == (2, 6, 5, 4)
    assert facts.shapes["y"] == (2, 120)
    assert facts.values["s"].tolist() == [2, 6, 5, 4]
    assert facts.values["t"].tolist() == [2, -1]
    assert (facts.unknown, facts.dynamic) == ((), True)
    assert facts.dtypes["a"] == 1
    assert facts.dtypes["s"] == 7


def test_free_sizes_are_1_where_nobody_says(graphs):
    assert facts_of(graphs, COMPUTED).shapes["y"] == (1, 24)


def test_a_fixed_graph_is_not_dynamic(graphs):
    facts = facts_of(graphs, COMPUTED.replace("float[N, 3, H, 4] x", "float[1, 3, 5, 4] x"))
    assert not facts.dynamic


def test_what_nobody_knows_is_named_and_what_is_declared_is_believed(graphs):
    facts = facts_of(graphs, UNKNOWN)
    assert facts.unknown == ("a", "b")
    assert facts.shapes["declared"] == facts.shapes["y"] == (1, 3, 4, 4)


def test_shapes_that_a_run_has_shown_go_on(graphs):
    facts = facts_of(graphs, UNKNOWN, shown={"a": (1, 3, 4, 4), "b": (1, 3, 4, 4)})
    assert facts.unknown == ()


def test_a_declared_shape_is_not_believed_where_sizes_are_free(graphs):
    facts = facts_of(graphs, UNKNOWN.replace("float[1, 3, 4, 4] x", "float[N, 3, 4, 4] x"))
    assert "declared" in facts.unknown


def test_declared_sizes_of_inputs_are_numbers_names_or_nothing(graphs):
    assert input_shapes(load(graphs.parse(COMPUTED))) == {"x": ("N", 3, "H", 4)}


def test_a_tensor_that_nothing_could_hold_is_refused(graphs):
    with pytest.raises(ReadError, match=r"asks for a tensor of(.|\n)*'x'"):
        facts_of(graphs, COMPUTED, sizes={"x": (1, 3, MOST_ENTRIES + 1, 4)})


BRANCHES = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 8, 6] x) => (float[A, B, C] y) <int64 two = {2}, int64 six = {6}> {
      s = Shape (x)
      last = Gather (s, two)
      same = Equal (last, six)
      chosen = If (same) <
        then_branch = a () => (float[D, E, F] t) { t = Transpose <perm = [0, 2, 1]> (x) },
        else_branch = b () => (float[D, E, F] t) { t = Identity (x) }>
      y = Relu (chosen)
    }
    """


def test_an_if_whose_condition_the_sizes_tell_has_the_shape_of_the_branch_that_is_taken(graphs):
    facts = facts_of(graphs, BRANCHES, sizes={"x": (2, 8, 6)})
    assert facts.unknown == ()
    assert facts.shapes["y"] == (2, 6, 8)
    other = facts_of(graphs, BRANCHES.replace("int64 six = {6}", "int64 six = {7}"), sizes={"x": (2, 8, 6)})
    assert other.shapes["y"] == (2, 8, 6)


def test_an_if_whose_condition_is_not_known_has_no_shape(graphs):
    text = BRANCHES.replace(
        "same = Equal (last, six)", "zero = ReduceMax <keepdims = 0> (x)\n same = Cast <to = 9> (zero)"
    )
    assert facts_of(graphs, text, sizes={"x": (2, 8, 6)}).unknown == ("chosen", "y")


FRAMES = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 6] x) => (float[A, B] y) <int64[2] target = {2, 12}, float[12, 5] w> {
      r = Reshape (x, target)
      y = Gemm (r, w)
    }
    """


@pytest.mark.parametrize(
    ("rows", "edit", "fit"),
    [
        (4, ("", ""), True),
        (1, ("", ""), False),  # six numbers are not 2 x 12
        (4, ("float[12, 5] w", "float[11, 5] w"), False),
        (4, ("float[N, 6] x", "int64[N, 6] ids"), False),  # numbers that may be indices
    ],
)
def test_sizes_fit_where_no_node_asks_for_others(graphs, rows, edit, fit):
    text = FRAMES.replace(*edit) if edit[0] else FRAMES
    if "ids" in text:
        text = text.replace("r = Reshape (x", "x = Cast <to = 1> (ids)\n r = Reshape (x")
    graph = load(graphs.parse(text))
    sizes = dict.fromkeys(input_shapes(graph), (rows, 6))
    assert sizes_fit(graph, tensor_facts(graph, sizes)) == fit
