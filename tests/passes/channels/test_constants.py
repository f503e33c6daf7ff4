"""A constant under a removal: which entries go, under which name each use goes on."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.constants import cut_names, gone, kept, readers
from onnx_prune.passes.graph.export import to_model

# Three convolutions share the vector b; the last one's output is the graph's.
SHARED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 6, 4, 4] y)
    <float[6, 3, 1, 1] w1, float[6, 6, 1, 1] w2, float[6, 6, 1, 1] w3, float[6] b, float[6] b_1> {
      a = Conv (x, w1, b)
      c = Conv (a, w2, b)
      y = Conv (c, w3, b)
    }
    """


@pytest.fixture
def groups(graphs):
    return graphs.groups_of(graphs.parse(SHARED))


def removal(groups, **units):
    """Group -> removed units as one bool a label; the groups are called after the nodes' outputs."""
    return groups.removed_labels(units)


def test_an_index_is_gone_where_its_label_is_and_positions_never_are():
    removed = np.array([True, False, True])
    axis = np.array([0, -1, 1, 2, 2])
    assert gone(axis, removed).tolist() == [True, False, False, True, True]
    assert kept(axis, removed).tolist() == [False, True, True, False, False]


def names_of_b(groups, removed):
    return {use: name for (constant, use), name in cut_names(groups.labelled, removed).items() if constant == "b"}


def test_nothing_that_stays_whole_is_named(groups):
    assert cut_names(groups.labelled, removal(groups)) == {}


def test_a_use_that_loses_entries_gets_a_copy_where_another_keeps_them(groups):
    assert names_of_b(groups, removal(groups, a=[0, 2])) == {"a": "b_2"}  # b_1 is taken


def test_uses_that_lose_the_same_share_a_copy_and_others_get_their_own(groups):
    assert names_of_b(groups, removal(groups, a=[1], c=[1])) == {"a": "b_2", "c": "b_2"}
    assert names_of_b(groups, removal(groups, a=[1], c=[4])) == {"a": "b_2", "c": "b_3"}


def test_every_use_reads_its_own_entries_in_the_cut_model(groups, graphs):
    before = numpy_helper.to_array(next(t for t in groups.labelled.graph.source.graph.initializer if t.name == "b"))
    cut = to_model(apply_removal(groups.labelled, removal(groups, a=[1], c=[0, 4])))
    stored = {t.name: numpy_helper.to_array(t) for t in cut.graph.initializer}
    read = [stored[node.input[2]] for node in cut.graph.node]
    expected = [np.delete(before, [1]), np.delete(before, [0, 4]), before]
    assert all(np.array_equal(a, b) for a, b in zip(read, expected, strict=True))


def test_readers_are_called_by_their_first_outputs(groups):
    assert readers(groups.labelled.graph.gs.tensors()["b"]) == {"a", "c", "y"}
