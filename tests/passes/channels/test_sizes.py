"""Sizes that are read as numbers: they keep their old value after a cut, or what they speak of stays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.values import DYNAMIC, TAINTED

# The channels' count divides the result, as where a mean is written out.
DIVIDED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[{batch}, 3, 4, 4] x) => (float[{batch}, 2, 4, 4] y)
    <float[8, 3, 1, 1] w1, float[2, 8, 1, 1] w2, int64 index = {{{index}}}> {{
      a = Conv (x, w1)
      s = Shape (a)
      n = Gather (s, index)
      c = Cast <to = 1> (n)
      z = Div (a, c)
      y = Conv (z, w2)
    }}
    """
# The same, but the number is mixed with the free batch.
MIXED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y)
    <float[8, 3, 1, 1] w1, float[2, 8, 1, 1] w2> {
      a = Conv (x, w1)
      n = Size (a)
      c = Cast <to = 1> (n)
      z = Div (a, c)
      y = Conv (z, w2)
    }
    """


def groups_of(graphs, index, batch=1):
    return graphs.groups_of(graphs.parse(DIVIDED.format(index=index, batch=batch)))


def test_each_size_is_told_by_what_it_depends_on(graphs):
    labelled = groups_of(graphs, 1, batch="N").labelled
    assert labelled.kinds["s"].tolist() == [DYNAMIC, TAINTED, 0, 0]
    assert labelled.kinds["c"].tolist() == TAINTED
    (axis,) = labelled.depends["s"]
    assert axis is labelled.axes["a"][1]


def test_a_count_of_channels_that_is_read_as_a_number_is_frozen(graphs):
    groups = groups_of(graphs, 1)
    node = next(i for i, n in enumerate(groups.labelled.graph.gs.nodes) if n.op == "Div")
    assert list(groups.labelled.frozen) == [(node, 1)]
    (group,) = (g for g in groups.free if g.units == 8)
    removed = groups.removed_labels({group.name: [1, 4]})
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)}
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6


def test_without_the_frozen_number_the_cut_divides_by_another(graphs):
    groups = groups_of(graphs, 1)
    (group,) = (g for g in groups.free if g.units == 8)
    removed = groups.removed_labels({group.name: [1, 4]})
    groups.labelled.frozen.clear()
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)}
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) > 1e-3


@pytest.mark.parametrize(("index", "batch"), [(0, 1), (2, 1), (2, "N")])
def test_sizes_of_batch_and_space_freeze_nothing(index, batch, graphs):
    assert not groups_of(graphs, index, batch).labelled.frozen


def test_a_number_that_mixes_channels_with_a_free_size_keeps_the_channels(graphs):
    groups = graphs.groups_of(graphs.parse(MIXED))
    assert not groups.free
    assert any("reads its size, mixed with a free dimension" in (g.pinned or "") for g in groups.groups)


# What torch writes for std.expand(n, 2, c // 2, h, w).reshape(n, c, h, w) with free n, h and w, as in EvoNorm.
EXPANDED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, H, W] x) => (float[N, 2, H, W] y)
    <float[8, 3, 1, 1] w1, float[2, 8, 1, 1] w2, int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 i3 = {3},
     int64[1] first = {0}, int64[1] two = {2}, int64 half = {2}, int64[1] minus = {-1}, int64[3] three = {0, 2, -1},
     int64[1] last = {2}> {
      a = Conv (x, w1)
      s = Shape (a)
      n = Gather (s, i0)
      c = Gather (s, i1)
      h = Gather (s, i2)
      w = Gather (s, i3)
      r = Reshape (a, three)
      m = ReduceMax <keepdims = 1, axes = [2]> (r)
      e = Unsqueeze (m, last)
      e5 = Unsqueeze (e, last)
      within = Div (c, half)
      n1 = Unsqueeze (n, first)
      within1 = Unsqueeze (within, first)
      h1 = Unsqueeze (h, first)
      w1d = Unsqueeze (w, first)
      c1 = Unsqueeze (c, first)
      to = Concat <axis = 0> (n1, two, within1, h1, w1d)
      rank = Shape (to)
      ones = ConstantOfShape <value = int64[1] {1}> (rank)
      minuses = Mul (ones, minus)
      free = Equal (to, minuses)
      target = Where (free, ones, to)
      wide = Expand (e5, target)
      back = Concat <axis = 0> (n1, c1, h1, w1d)
      d = Reshape (wide, back)
      z = Add (a, d)
      y = Conv (z, w2)
    }
    """


def test_a_size_that_is_always_the_same_is_no_free_one(graphs):
    """The rank of a target is 5 for every input: what is computed from it does not mix channels with free sizes."""
    groups = graphs.groups_of(graphs.parse(EXPANDED), {"x": (1, 3, 4, 6)})
    (group,) = (g for g in groups.free if g.units > 1)
    removed = groups.removed_labels({group.name: [1]})
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    for shape in ((1, 3, 4, 6), (2, 3, 5, 3)):
        feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6


def test_which_sizes_are_free_is_told_axis_by_axis(graphs):
    facts = graphs.groups_of(graphs.parse(EXPANDED), {"x": (1, 3, 4, 6)}).labelled.facts
    assert [facts.varies("a", axis) for axis in range(4)] == [True, False, True, True]
    assert not facts.varies("to", 0)


# What torch writes for a variance over groups (n, 2, 4, h, w) with free h and w: it divides by their number less one.
VARIANCE = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, H, W] x) => (float[1, 2, H, W] y)
    <float[8, 3, 1, 1] w1, float[2, 8, 1, 1] w2, int64[3] over = {2, 3, 4}, float one = {1},
     int64[5] grouped = {0, 2, 4, -1, 4}> {
      a = Conv (x, w1)
      r = Reshape (a, grouped)
      m = ReduceMean <axes = [2, 3, 4]> (r)
      s = Shape (r)
      of = Gather (s, over)
      n = ReduceProd <keepdims = 0> (of)
      c = Sub (r, m)
      q = Mul (c, c)
      v = ReduceMean <axes = [2, 3, 4]> (q)
      f = Cast <to = 1> (n)
      t = Mul (v, f)
      l = Sub (f, one)
      z = Div (t, l)
      d = Div (c, z)
      whole = Shape (a)
      b = Reshape (d, whole)
      y = Conv (b, w2)
    }
    """


def test_a_number_of_positions_in_a_group_leaves_whole_groups_free(graphs):
    """The size of a group is read, mixed with the free height; how many groups there are is not read."""
    groups = graphs.groups_of(graphs.parse(VARIANCE), {"x": (1, 3, 2, 4)})
    (group,) = (g for g in groups.free if g.units == 2)
    removed = groups.removed_labels({group.name: [0]})
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    for height in (2, 3):
        feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, height, 4)).astype(np.float32)}
        assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6


def test_a_size_is_known_by_the_numbers_that_it_is_in(graphs):
    labelled = graphs.groups_of(graphs.parse(VARIANCE), {"x": (1, 3, 2, 4)}).labelled
    assert len(labelled.depends["s"]) == 2
    (axis,) = labelled.depends["of"]
    assert axis is labelled.axes["r"][2]
    assert [mark.tolist() for mark in labelled.marks["of"]] == [[1, 0, 0]]
