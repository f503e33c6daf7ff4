"""Which patches are read, and from where."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.algebra.im2col import patch_table
from onnx_prune.passes.algebra.positions import Positions, default_positions
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps, instrument

BLOCK = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2, 3, 8, 8] x) => (float[2, 4, 8, 8] y, float[2, 4, 4, 4] z)
<float[6, 3, 3, 3] w1, float[4, 6, 3, 3] w2, float[4, 6, 3, 3] w3, float[4, 6, 3, 3] w4, float[4, 6, 1, 1] w5> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  r = Relu (a)
  y2 = Conv <pads = [1, 1, 1, 1]> (r, w2)
  y3 = Conv <pads = [1, 1, 1, 1]> (r, w3)
  y5 = Conv (r, w5)
  z = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w4)
  y = Sum (y2, y3, y5)
}
"""


@pytest.fixture
def labels_of(graphs):
    def read(text: str):
        graph = load(graphs.parse(text))
        return label_channels(graph, tensor_facts(graph))

    return read


def test_consumers_that_read_alike_share_a_tap(labels_of):
    taps = find_taps(labels_of(BLOCK))
    assert [tap.consumers for tap in taps] == [("y2", "y3"), ("y5",), ("z",)]
    assert taps["y3"] is taps["y2"]
    assert [tap.consumers for tap in taps.only(["z", "y3"])] == [("z",), ("y2", "y3")]
    assert (taps["z"].inner, taps["z"].grid, taps["z"].table.shape) == (64, 16, (16, 9))
    assert taps.sizes == {"x": (3, 8, 8)}


def test_a_tensor_is_turned_once_and_equal_choices_are_fed_once(labels_of):
    added = instrument(find_taps(labels_of(BLOCK)), 17).additions.graph
    assert [n.op_type for n in added.node] == ["Transpose", "Flatten", "Gather", "Gather", "Gather"]
    assert (len(added.input), len(added.output)) == (3, 3)


def test_what_reads_no_channels_is_left_out(labels_of):
    assert not any("a" in tap.consumers for tap in find_taps(labels_of(BLOCK)))


def test_einsum_and_weights_with_batch_axes_are_left_out(labels_of):
    labelled = labels_of("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3, 5] x) => (float[2, 3, 4] y, float[2, 3, 4] z)
        <float[5, 4] w, float[2, 5, 4] v> {
          y = Einsum <equation = "abc,cd->abd"> (x, w)
          z = MatMul (x, v)
        }""")
    assert len(labelled.consumers) >= 1
    assert len(find_taps(labelled, labelled.consumers)) == 0


def test_positions_are_the_same_for_every_batch_size():
    whole = Positions(3, 5)
    parts = Positions(3, 5)
    parts(17, 2)  # another grid is another stream
    drawn = whole(64, 12)
    assert (np.concatenate([parts(64, n) for n in (1, 7, 4)]) == drawn).all()
    assert (Positions(4, 5)(64, 12) != drawn).any()


@pytest.mark.parametrize(("most", "grid"), [(5, 64), (7, 7), (100, 33), (3, 1)])
def test_positions_are_spread_evenly_and_all_are_taken_where_there_are_few(most, grid):
    drawn = Positions(0, most)(grid, 2000)
    assert drawn.shape == (2000, min(most, grid))
    assert (np.diff(drawn) >= 0).all()
    frequency = np.bincount(drawn.ravel(), minlength=grid) / 2000
    assert frequency == pytest.approx(np.full(grid, min(most, grid) / grid), abs=0.06)
    if most >= grid:
        assert (drawn == np.arange(grid)).all()


def test_fewer_positions_are_drawn_of_small_maps():
    assert [default_positions(grid) for grid in (1, 2, 49, 64, 1024, 3136)] == [1, 2, 6, 6, 12, 15]


def test_the_table_of_a_convolution_by_hand():
    attrs = {"strides": [2], "pads": [1, 0]}
    assert patch_table(attrs, [5], [2], [3], transposed=False).tolist() == [[-1, 0, 1], [1, 2, 3]]
    # the input i reaches the outputs 2i, 2i + 1, 2i + 2
    want = [[0, -1, -1], [-1, 0, -1], [1, -1, 0], [-1, 1, -1], [-1, -1, 1]]
    assert patch_table({"strides": [2]}, [2], [5], [3], transposed=True).tolist() == want
