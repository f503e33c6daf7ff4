"""What a rewrite may do to one node: sizes in the way they were said, slices, gathers, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.graph.export import to_model

# a's 8 channels are removed one by one; where a size is free, it is computed in the graph.
RESHAPED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[{batch}, 3, 4, 4] x) => (float[{batch}, 5] y)
    <float[8, 3, 1, 1] w1, float[128, 5] w2, {weights}> {{
      a = Conv (x, w1)
      {nodes}
      z = Reshape (a, shape)
      y = MatMul (z, w2)
    }}
    """
COMPUTED = "s = Shape (a)\n n = Gather (s, zero)\n b = Unsqueeze (n, first)\n shape = Concat <axis = 0> (b, rest)"
CONSTANTS = "int64 zero = {0}, int64[1] first = {0}, int64[1] rest = {128}"


def cut_of(graphs, text, units=(0, 3, 5)):
    """The model without these channels of a."""
    groups = graphs.groups_of(graphs.parse(text))
    (group,) = (g for g in groups.free if g.units == 8)
    return to_model(apply_removal(groups.labelled, groups.removed_labels({group.name: units})))


def stored(model, name):
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).tolist()


@pytest.mark.parametrize(("said", "expected"), [("{2, 128}", [2, 80]), ("{0, -1}", [0, -1]), ("{-1, 128}", [-1, 80])])
def test_a_size_is_said_as_it_was(said, expected, graphs):
    cut = cut_of(graphs, RESHAPED.format(batch=2, weights=f"int64[2] shape = {said}", nodes=""))
    assert stored(cut, cut.graph.node[1].input[1]) == expected


def test_of_a_target_that_depends_on_a_free_size_only_the_cut_one_is_replaced(graphs):
    cut = cut_of(graphs, RESHAPED.format(batch="N", weights=CONSTANTS, nodes=COMPUTED))
    for batch in (1, 3):
        feeds = {"x": np.random.default_rng(0).standard_normal((batch, 3, 4, 4)).astype(np.float32)}
        assert graphs.ort(cut, feeds)[0].shape == (batch, 5)


SLICED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[8, 3, 1, 1] w1, float[2, 4, 1, 1] w2, int64[1] s = {1}, int64[1] e = {8}, int64[1] k = {1}, int64[1] t = {2}>
    {
      a = Conv (x, w1)
      z = Slice (a, s, e, k, t)
      y = Conv (z, w2)
    }
    """


def operators(model):
    return [node.op_type for node in model.graph.node]


def removal(groups, channels):
    """Channels of a as one bool a label."""
    return np.isin(groups.component, groups.component[groups.labelled.axes["a"][1][list(channels)]])


@pytest.mark.parametrize(
    ("channels", "left"),
    [
        ([0], [1, 3, 5, 7]),
        ([0, 2], [1, 3, 5, 7]),
        ([0, 1, 2, 3], [5, 7]),
        ([0, 2, 4, 6], [1, 3, 5, 7]),
        ([3], [1, 5, 7]),
    ],
)
def test_a_slice_takes_what_is_left_of_what_it_took(channels, left, graphs):
    model = graphs.parse(SLICED)
    numbered = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None, None] / 3, (8, 3, 1, 1))
    values = {"w1": numbered, "w2": np.ones((2, 4, 1, 1), np.float32)}
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    groups = graphs.groups_of(model)
    cut = to_model(apply_removal(groups.labelled, removal(groups, channels)))
    y = graphs.ort(cut, {"x": np.ones((1, 3, 4, 4), np.float32)})[0]
    np.testing.assert_allclose(y, sum(left), rtol=1e-6)


def test_uneven_positions_become_a_gather(graphs):
    groups = graphs.groups_of(graphs.parse(SLICED))
    cut = to_model(apply_removal(groups.labelled, removal(groups, [3])))
    assert operators(cut) == ["Conv", "Gather", "Identity", "Conv"]
    assert stored(cut, cut.graph.node[1].input[1]) == [1, 4, 6]


def test_positions_count_what_is_left(graphs):
    labelled = graphs.groups_of(graphs.parse(SLICED)).labelled
    axis = labelled.axes["a"][1]
    removed = np.zeros(labelled.count, bool)
    removed[axis[[0, 3]]] = True
    cut = Cut(labelled.graph.copy(), labelled, removed)
    assert cut.size(axis) == 6
    assert cut.kept(axis).tolist() == [False, True, True, False, True, True, True, True]
    assert cut.remaining(axis, np.array([1, 3, 7, 7])).tolist() == [0, 5, 5]
    assert cut.touched(axis)
    assert not cut.touched(labelled.axes["a"][2])
