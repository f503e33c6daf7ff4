"""Residual blocks: the sums of a graph, what stands inside one branch alone, and the streams along them."""

from __future__ import annotations

import functools
import re

import pytest
from onnx_prune import models
from onnx_prune.passes.channels.blocks import producers, residual_blocks, summed

BUILDERS = {
    "resnet56": lambda: models.resnet_cifar(56),
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "vgg16": models.vgg16_cifar,
    "mobilenet_v2": lambda: models.mobilenet_v2(input_size=32),
    "unet": models.unet,
}


@pytest.fixture(scope="module")
def network(groups_of):
    return functools.cache(lambda name: groups_of(BUILDERS[name]()))


def matching(groups, pattern):
    return {g.name for g in groups.free if re.fullmatch(pattern, g.name)}


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet56", 27), ("resnet34", 16), ("resnet50", 16), ("mobilenet_v2", 10), ("vgg16", 0), ("unet", 0)],
)
def test_every_residual_sum_is_a_block(network, name, count):
    assert len(residual_blocks(network(name).labelled)) == count


def test_a_block_holds_what_one_branch_has_alone(network):
    labelled = network("resnet50").labelled
    first, second = residual_blocks(labelled)[:2]
    operators = [sorted(labelled.graph.gs.nodes[n].op for n in block.inside) for block in (first, second)]
    assert [o.count("Conv") for o in operators] == [4, 3]  # the projection is the first block's own
    assert first.shape == second.shape == (1, 256, 56, 56)
    assert not first.inside & second.inside


def test_a_sum_with_a_constant_or_of_what_has_nothing_in_common_is_no_block(graphs):
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 4, 2, 2] x, float[1, 4, 2, 2] z) => (float[1, 4, 2, 2] y, float[1, 4, 2, 2] r)
    <float[4, 4, 1, 1] w, float[4, 4, 1, 1] v, float[1, 4, 2, 2] k> {
      a = Conv (x, w)
      b = Add (a, k)
      c = Conv (z, v)
      y = Add (b, c)
      r = Add (b, x)
    }
    """
    labelled = graphs.groups_of(graphs.parse(text)).labelled
    (block,) = residual_blocks(labelled)
    assert labelled.graph.gs.nodes[block.sum].outputs[0].name == "r"
    assert {labelled.graph.gs.nodes[n].outputs[0].name for n in block.inside} == {"a", "b"}


def test_a_long_chain_of_blocks_is_walked_once(groups_of):
    groups = groups_of(models.resnet_cifar(110))
    blocks = residual_blocks(groups.labelled)
    assert sum(len(block.inside) for block in blocks) < len(groups.labelled.graph.gs.nodes)


def test_streams_are_the_groups_along_the_sums(network):
    groups = network("resnet56")
    streams = summed(groups, residual_blocks(groups.labelled))
    assert streams == matching(groups, r"conv1|layer[23]\.0\.conv2")
    assert all(len(producers(groups)[name]) > 1 for name in streams)
