"""Where one axis stands for several, the choice that leaves most weights free is taken, and said where none is."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.channels.solve.splits import resolve_splits
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts

GROUPED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 2, 2] x) => (float[1, 5, 2, 2] y)
    <float[{inputs}, 3, 1, 1] w1, float[{outputs}, {each}, 1, 1] w2, float[5, {outputs}, 1, 1] w3> {{
      a = Conv (x, w1)
      b = Conv <group = {group}> (a, w2)
      y = Conv (b, w3)
    }}
    """
SHUFFLED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[8, 3, 1, 1] w1, float[2, 8, 1, 1] w2, int64[5] five = {1, 2, 4, 4, 4}, int64[4] four = {1, 8, 4, 4}> {
      a = Conv (x, w1)
      u = Reshape (a, five)
      v = Transpose <perm = [0, 2, 1, 3, 4]> (u)
      z = Reshape (v, four)
      y = Conv (z, w2)
    }
    """


def grouped(**sizes):
    return GROUPED.format(**sizes)


def units(graphs, text):
    return {g.name: g.units for g in graphs.groups_of(graphs.parse(text)).free}


def test_positions_in_a_shuffle_go_together_with_those_of_the_other_groups(graphs):
    """Four positions in each of two groups: more units than the two groups."""
    model = graphs.parse(SHUFFLED)
    groups = graphs.groups_of(model)
    (group,) = groups.free
    assert group.units == 4
    (slices,) = (s for key, s in group.slices.items() if (key.constant, key.axis) == ("w1", 0))
    assert sorted(map(sorted, slices.tolist())) == [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"inputs": 8, "outputs": 8, "each": 4, "group": 2}, {"a": 4, "b": 4}),  # positions
        ({"inputs": 8, "outputs": 16, "each": 1, "group": 8}, {"a": 8}),  # a depthwise filter goes with its channel
    ],
    ids=["two groups of four", "eight groups of one"],
)
def test_groups_or_their_positions_go_whichever_frees_more(sizes, expected, graphs):
    assert units(graphs, grouped(**sizes)) == expected


def test_grouped_convolutions_in_a_row_agree_on_positions_where_that_frees_more(graphs):
    """Whole groups would tie all four layers into two units; positions leave each layer its own."""
    model = graphs.parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1, 3, 2, 2] x) => (float[1, 5] y)
        <float[8, 3, 1, 1] w1, float[8, 4, 1, 1] w2, float[12, 4, 1, 1] w3, float[48, 5] w4> {
          a = Conv (x, w1)
          b = Conv <group = 2> (a, w2)
          c = Conv <group = 2> (b, w3)
          f = Flatten (c)
          y = MatMul (f, w4)
        }
        """
    )
    assert {g.name: g.units for g in graphs.groups_of(model).free} == {"a": 4, "b": 4, "c": 6}


def test_an_axis_that_only_holds_single_entries_leaves_nothing_to_choose(graphs):
    """Channels (2, 4) that are mixed along both axes: neither can lose entries, and the reason says which shape."""
    text = SHUFFLED.replace("u = Reshape (a, five)", "r = Reshape (a, five)\n u = Softmax <axis = 1> (r)").replace(
        "z = Reshape (v, four)", "s = Softmax <axis = 1> (v)\n z = Reshape (s, four)"
    )
    groups = graphs.groups_of(graphs.parse(text))
    assert not groups.free
    assert any("mixes the entries of its axis" in g.pinned for g in groups.groups)


def test_ties_and_pins_of_the_solution_speak_of_labels_that_there_are(graphs):
    graph = load(graphs.parse(SHUFFLED))
    labelled = label_channels(graph, tensor_facts(graph))
    ties, pins = resolve_splits(labelled)
    arrays = [array for tie in ties for array in tie] + [array for array, _ in pins]
    assert all(((array >= 0) & (array < labelled.count)).all() for array in arrays)
    assert all(len(first) == len(second) for first, second in ties)
    assert len(np.unique(np.concatenate(arrays))) > 8


def test_a_graph_without_splits_has_nothing_to_say(graphs):
    graph = load(graphs.parse(grouped(inputs=8, outputs=8, each=8, group=1)))
    assert resolve_splits(label_channels(graph, tensor_facts(graph))) == ([], [])
