"""Whole networks: which channels live and die together, and what the groups are called."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune import models

# --- residual networks ------------------------------------------------------------------------------------------------


def stages_of(group):
    """The stages in which the group has weights; the stem counts as the first, the classifier as the third."""
    known = {"conv1": "layer1", "bn1": "layer1", "linear": "layer3", "fc": "layer3"}
    return {known.get(name.split(".")[0], name.split(".")[0]) for name, _, _ in group.slices}


def kinds(groups, blocks):
    """Free groups apart: (units, stages) of those on the main path, units by name of those inside the blocks."""
    inner = {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(blocks)}
    main = [(g.units, tuple(sorted(stages_of(g)))) for g in groups.free if g.name not in inner]
    return main, {g.name: g.units for g in groups.free if g.name in inner}


def pins(groups):
    return {g.pinned: g.units for g in groups.groups if g.pinned}


def assert_option_a(groups, blocks):
    """Zero padding on both sides: 16 channels run through all stages, 16 begin in the second, 32 in the third."""
    main, inner = kinds(groups, blocks)
    assert main == [(16, ("layer1", "layer2", "layer3")), (16, ("layer2", "layer3")), (32, ("layer3",))]
    assert inner == {f"layer{s}.{b}.conv1": 16 << (s - 1) for s in (1, 2, 3) for b in range(blocks)}
    assert pins(groups) == {"graph input 'input'": 3, f"graph output '{output_of(groups)}'": 10}
    last = f"layer3.{blocks - 1}.conv2.weight"
    rows = [groups[name].slices[last, "", 0].ravel().tolist() for name in ("conv1", "layer2.0.conv2", "layer3.0.conv2")]
    assert rows[0] == list(range(24, 40))
    assert rows[1] == [*range(16, 24), *range(40, 48)]
    assert rows[2] == [*range(16), *range(48, 64)]


def output_of(groups):
    return groups.labelled.graph.source.graph.output[0].name


@pytest.mark.shared
@pytest.mark.parametrize("export", ["", "-bn"])
@pytest.mark.parametrize(("depth", "blocks"), [(20, 3), (56, 9)])
def test_residual_stages_are_found_in_both_exports(depth, blocks, export, shared, groups_of):
    assert_option_a(groups_of(onnx.load(shared / f"models/resnet{depth}-cifar10{export}.onnx")), blocks)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(("depth", "blocks"), [(20, 3), (56, 9), (110, 18)])
def test_residual_stages_of_our_own_networks(depth, blocks, folded, groups_of):
    assert_option_a(groups_of(models.resnet_cifar(depth, folded=folded)), blocks)


@pytest.mark.parametrize(("depth", "blocks"), [(20, 3), (56, 9)])
def test_projections_separate_the_stages(depth, blocks, groups_of):
    groups = groups_of(models.resnet_cifar(depth, "B"))
    main, inner = kinds(groups, blocks)
    assert [units for units, _ in main] == [16, 32, 64]
    assert len(inner) == 3 * blocks
    assert set(pins(groups).values()) == {3, 10}


def test_a_shifted_padding_would_be_seen(groups_of):
    model = models.resnet_cifar(20)
    pads = next(t for t in model.graph.initializer if t.name == "layer2.0.shortcut.pad.pads")
    pads.raw_data = np.array([0, 7, 0, 0, 0, 9, 0, 0]).tobytes()
    with pytest.raises(AssertionError):
        assert_option_a(groups_of(model), 3)


def test_bottlenecks_have_two_inner_groups_each(groups_of):
    groups = groups_of(models.resnet50(input_size=32))
    inner = [g for g in groups.free if g.name.startswith("layer") and g.name[-5:] in ("conv1", "conv2")]
    main = [g for g in groups.free if g not in inner]
    assert len(inner) == 2 * 16
    assert [g.units for g in main] == [64, 256, 512, 1024, 2048]  # the stem, then one residual sum a stage
    assert set(pins(groups).values()) == {3, 1000}


# --- other families ---------------------------------------------------------------------------------------------------


def test_densenet_reuses_every_channel_in_all_later_layers(groups_of):
    groups = groups_of(models.densenet40())
    assert len(groups.free) == 1 + 3 * 12 + 2  # the stem, the layers, the transitions
    first = groups["block1.layer.0.conv1"]
    readers = {name for name, _, _ in first.consumed}
    assert readers == {f"block1.layer.{i}.conv1.weight" for i in range(1, 12)} | {"trans1.conv1.weight"}
    last = first.slices["block1.layer.11.conv1.weight", "", 1]
    assert last.ravel().tolist() == list(range(16, 28))  # behind the stem's 16 channels
    assert set(pins(groups).values()) == {3, 10}


@pytest.mark.parametrize("build", [models.mobilenet_v1, models.mobilenet_v2])
def test_a_depthwise_filter_lives_with_its_channel(build, groups_of):
    model = build()
    groups = groups_of(model)
    shapes = {t.name: list(t.dims) for t in model.graph.initializer}
    depthwise = {name for name, shape in shapes.items() if len(shape) == 4 and shape[1] == 1}
    owners = {name: [g for g in groups.free if (name, "", 0) in g.slices] for name in depthwise}
    assert len(depthwise) in (13, 17)
    for name, found in owners.items():
        assert len(found) == 1
        assert found[0].units == shapes[name][0]
        assert any(key[0] not in depthwise and key[2] == 0 for key in found[0].produced)  # made before, filtered here
    assert set(pins(groups).values()) == {3, 1000}


def test_a_unet_concatenation_keeps_its_two_sources_apart(groups_of):
    groups = groups_of(models.unet())
    skip, up = groups["inc.double_conv.3"], groups["up3.up"]
    weight = ("up3.double_conv.0.weight", "", 1)
    joined = np.concatenate([skip.slices[weight].ravel(), up.slices[weight].ravel()])
    assert sorted(joined.tolist()) == list(range(len(joined)))
    assert not any(group.pinned for group in (skip, up))


SHUFFLE = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[8, 3, 1, 1] first, float[8, 4, 1, 1] second, float[2, 8, 1, 1] third,
     int64[5] five = {1, 2, 4, 4, 4}, int64[4] four = {1, 8, 4, 4}> {
      a = Conv (x, first)
      r = Reshape (a, five)
      t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
      b = Reshape (t, four)
      c = Conv <group = 2> (b, second)
      y = Conv (c, third)
    }
    """


def test_a_shuffle_carries_channels_to_their_new_places(graphs):
    groups = graphs.groups_of(graphs.parse(SHUFFLE))
    shuffled, grouped = groups["a"], groups["c"]
    # Channel 4 g + i goes to position 2 i + g: the first half to the even places of both groups of the convolution.
    assert shuffled.slices["first", "", 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert shuffled.slices["second", "", 1].tolist() == [[0, 2], [1, 3]]
    assert grouped.slices["second", "", 0].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]  # one place in every group
    assert not any(group.pinned for group in (shuffled, grouped))


GATE = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[8, 3, 1, 1] main, float[4, 8, 1, 1] squeeze, float[8, 4, 1, 1] excite, float[2, 8, 1, 1] last> {
      a = Conv (x, main)
      p = GlobalAveragePool (a)
      s = Conv (p, squeeze)
      r = Relu (s)
      e = Conv (r, excite)
      g = Sigmoid (e)
      m = Mul (a, g)
      y = Conv (m, last)
    }
    """


def test_a_gate_lives_with_the_channel_that_it_scales(graphs):
    groups = graphs.groups_of(graphs.parse(GATE))
    assert {g.name: g.units for g in groups.free} == {"a": 8, "s": 4}
    gated = groups["a"]
    assert set(gated.slices) == {("main", "", 0), ("squeeze", "", 1), ("excite", "", 0), ("last", "", 1)}
    assert set(gated.consumed) == {("squeeze", "", 1), ("last", "", 1)}


NHWC = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 4, 3] x) => (float[1, 4, 4, 2] y)
    <float[8, 3, 1, 1] first, float[8] bias, float[8, 6] middle, float[2, 6, 1, 1] last> {
      t = Transpose <perm = [0, 3, 1, 2]> (x)
      a = Conv (t, first)
      n = Transpose <perm = [0, 2, 3, 1]> (a)
      b = Add (n, bias)
      c = MatMul (b, middle)
      u = Transpose <perm = [0, 3, 1, 2]> (c)
      d = Conv (u, last)
      y = Transpose <perm = [0, 2, 3, 1]> (d)
    }
    """


def test_channels_are_found_wherever_they_stand(graphs):
    groups = graphs.groups_of(graphs.parse(NHWC))
    assert {g.name: g.units for g in groups.free} == {"a": 8, "c": 6}
    assert set(groups["a"].slices) == {("first", "", 0), ("bias", "", 0), ("middle", "", 0)}
    assert set(groups["c"].slices) == {("middle", "", 1), ("last", "", 1)}
    assert pins(groups) == {"graph input 'x'": 3, "graph output 'y'": 2}


# --- names ------------------------------------------------------------------------------------------------------------


def test_groups_are_called_after_the_module_that_makes_them(groups_of):
    names = [g.name for g in groups_of(models.lenet5()).groups]
    assert names == ["conv1", "conv2", "fc1", "fc2"]


ONE = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) <float[8, 3, 1, 1] first, float[2, 8, 1, 1] last> {
      a = Conv (x, first)
      y = Conv (a, last)
    }
    """


@pytest.mark.parametrize(
    ("node", "weight", "expected"),
    [
        ("/layer1/layer1.0/conv1/Conv", "onnx::Conv_193", "layer1.0.conv1"),  # torch, BatchNorm folded
        ("/encoder/block/Conv", "onnx::Conv_193", "encoder.block"),
        ("node_Conv_877", "layer1.0.conv1.weight", "layer1.0.conv1"),  # torch's exporter by dynamo
        ("/model/conv/Conv", "model.conv.weight_quantized", "model.conv"),
        ("Conv_0", "123", "Conv_0"),
        ("", "123", "a"),
    ],
)
def test_a_name_is_the_module_path_where_there_is_one(node, weight, expected, graphs):
    model = graphs.parse(ONE)
    model.graph.node[0].name = node
    model.graph.node[0].input[1] = model.graph.initializer[0].name = weight
    assert graphs.groups_of(model).free[0].name == expected


def test_names_are_unique_and_the_same_every_time(groups_of):
    first, second = ([g.name for g in groups_of(models.mobilenet_v2()).groups] for _ in range(2))
    assert len(set(first)) == len(first)
    assert first == second
