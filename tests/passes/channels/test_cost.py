"""Costs at any widths are exactly those of the cut model."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx_prune import models
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.graph.export import infer_shapes, to_model

BUILDERS = {
    "lenet5": models.lenet5,
    "digits": models.digits_resnet,
    "resnet20 A": lambda: models.resnet_cifar(20, "A"),
    "resnet20 B folded": lambda: models.resnet_cifar(20, "B", folded=True),
    "vgg16": models.vgg16_cifar,
    "mobilenet_v2": lambda: models.mobilenet_v2(input_size=32),
    "densenet40": models.densenet40,
    "unet": models.unet,
}


def random_removal(groups, seed):
    """A random share of the units of each free group, at least one of which stays."""
    rng = np.random.default_rng(seed)
    return {g.name: rng.permutation(g.units)[: rng.integers(g.units)] for g in groups.free}


@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)
def test_costs_equal_those_counted_on_the_cut_model(builder, groups_of):
    groups = groups_of(builder())
    cost = cost_model(groups)
    for seed in range(3):
        removed = random_removal(groups, seed)
        cut = infer_shapes(to_model(apply_removal(groups.labelled, groups.removed_labels(removed))))
        recount = cost_model(groups_of(cut))
        kept = cost.kept(removed)
        assert cost.macs(kept) == recount.macs(recount.units)
        assert cost.params(kept) == recount.params(recount.units)
        assert cost.params(kept) < cost.params(cost.units)
        assert cost.size(kept) == pytest.approx(cut.ByteSize(), abs=1000)
        one_more = kept + (np.cumsum(cost.free) == 1)  # the oracle notices a single unit
        assert cost.macs(one_more) != recount.macs(recount.units)


def test_published_costs_of_the_whole_networks(groups_of):
    for model, macs, params in (
        (models.resnet_cifar(56, "A"), 125.49e6, 0.853e6),
        (models.vgg16_cifar(), 313.46e6, 14.99e6),
        (models.mobilenet_v2(), 300.77e6, 3.505e6),
    ):
        cost = cost_model(groups_of(model))
        assert cost.macs(cost.units) == pytest.approx(macs, rel=1e-4)
        assert cost.params(cost.units) == pytest.approx(params, rel=0.02)  # the papers leave out BatchNorm's statistics


def test_size_estimates_the_file_without_serialising_it(groups_of):
    model = models.vgg16_cifar()
    cost = cost_model(groups_of(model))
    assert cost.size(cost.units) == pytest.approx(model.ByteSize(), rel=1e-4)


def test_pinned_groups_do_not_change_the_cost(groups_of):
    cost = cost_model(groups_of(models.lenet5()))
    assert cost.macs(np.where(cost.free, cost.units, 0)) == cost.macs(cost.units)


SHARED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[6, 3, 1, 1] w1, float[6, 6, 1, 1] w2, float[2, 6, 1, 1] w3, float two = {2}, int64[1] unread = {7}> {
      a = Conv (x, w1)
      b = Conv (a, w2)
      c = Conv (b, w2)
      d = Mul (c, two)
      y = Conv (d, w3)
    }
"""


def test_a_shared_constant_counts_once_and_its_work_twice(groups_of):
    model = parser.parse_model(SHARED)
    shapes = {"w1": (6, 3, 1, 1), "w2": (6, 6, 1, 1), "w3": (2, 6, 1, 1)}
    for name, shape in shapes.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    del model.graph.input[1:]
    cost = cost_model(groups_of(model))
    assert cost.params(cost.units) == 18 + 36 + 12 + 1
    assert cost.macs(cost.units) == 16 * (18 + 36 + 36 + 12)


APART = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[4, 3, 1, 1] w1, float[4, 4, 1, 1] w2, float[4, 4, 1, 1] w3, float[2, 4, 1, 1] w4,
     float[4] one = {1, 2, 3, 4}> {
      a = Conv (x, w1, one)
      b = Conv (a, w2, one)
      c = Conv (b, w3, one)
      y = Conv (c, w4)
    }
"""


@pytest.mark.parametrize(
    ("removed", "bias"),
    [
        ({}, 4),
        ({"a": (0,)}, 4 + 3),
        ({"a": (0,), "b": (1, 2)}, 4 + 3 + 2),
        ({"a": (0,), "b": (1, 2), "c": (3,)}, 3 + 2 + 3),
    ],
)
def test_a_shared_vector_that_is_cut_apart_counts_once_for_every_cut(removed, bias, groups_of):
    model = parser.parse_model(APART)
    for name, shape in {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "w4": (2, 4, 1, 1)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    groups = groups_of(model)
    cost = cost_model(groups)
    cut = infer_shapes(to_model(apply_removal(groups.labelled, groups.removed_labels(removed))))
    recount = cost_model(groups_of(cut))
    widths = [3, *(4 - len(removed.get(name, ())) for name in "abc"), 2]
    assert cost.params(cost.kept(removed)) == sum(a * b for a, b in pairwise(widths)) + bias
    assert cost.params(cost.kept(removed)) == recount.params(recount.units)
