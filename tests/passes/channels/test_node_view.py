"""What is known of a node is said in one way, and stays as it was labelled whatever a cut does to it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.channels.node_view import NodeView
from onnx_prune.passes.graph.values import TAINTED

SHARED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2, 3, 4, 4] x) => (float[2, 2, 4, 4] y)
    <float[6, 3, 1, 1] w1, float[6, 6, 1, 1] w2, float[6] b, float[2, 6, 1, 1] w3> {
      a = Conv (x, w1, b)
      c = Conv (a, w2, b)
      s = Shape (c)
      r = Reshape (c, s)
      d = Clip (r, , )
      y = Conv (d, w3)
    }
    """


@pytest.fixture
def labelled(graphs):
    return graphs.groups_of(graphs.parse(SHARED)).labelled


def test_a_view_says_labels_shapes_and_numbers(labelled):
    view = NodeView(labelled, 3)
    assert view.name == "r"
    assert (view.rank(0), view.shape(0), view.out_shape()) == (4, (2, 6, 4, 4), (2, 6, 4, 4))
    assert view.value(0) is None
    assert view.value(1).tolist() == [2, 6, 4, 4]
    assert (view.kind(1) & TAINTED).astype(bool).tolist() == [False, True, False, False]
    assert not view.kind(0).any()
    assert [len(axis) for axis in view.axes(0)] == [len(axis) for axis in view.output_axes()] == [2, 6, 4, 4]


def test_a_vector_that_two_nodes_read_has_labels_of_its_own_at_each(labelled):
    first, second = NodeView(labelled, 0).axes(2)[0], NodeView(labelled, 1).axes(2)[0]
    assert len(first) == len(second) == 6
    assert not set(first.tolist()) & set(second.tolist())


def test_an_input_that_is_left_out_is_not_there(labelled):
    clip = NodeView(labelled, 4)
    assert [clip.has(position) for position in range(4)] == [True, False, False, False]
    assert clip.value(1) is None


def test_a_cut_changes_the_copy_and_not_what_is_seen_of_the_node(labelled):
    copy = labelled.graph.copy()
    cut = Cut(copy, labelled, np.zeros(labelled.count, bool))
    cut.begin(3)
    cut.set_input(1, np.array([0, -1, 4, 4]))
    assert cut.node.inputs[1].values.tolist() == [0, -1, 4, 4]
    assert cut.value(1).tolist() == [2, 6, 4, 4]
    assert cut.original is labelled.graph.gs.nodes[3]
    assert cut.node is copy.gs.nodes[3]
