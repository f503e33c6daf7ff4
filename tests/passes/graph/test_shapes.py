"""Shapes and small numbers of a graph, for one choice of its input sizes."""

from __future__ import annotations

import pytest
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import MOST_ENTRIES, input_shapes, tensor_facts

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
