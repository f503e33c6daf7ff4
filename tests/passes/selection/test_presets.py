"""Presets find their layers by structure: those that the papers name, in networks that others call otherwise."""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx_prune import models
from onnx_prune.models import NetBuilder
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.criteria import make_criterion
from onnx_prune.passes.selection.layers import (
    convolutions,
    first_convolutions,
    inner_convolutions,
    rectified,
    stage_starts,
)
from onnx_prune.passes.selection.methods import make_method
from onnx_prune.passes.selection.presets import PRESETS, make_preset, most_sensitive

BUILDERS = {
    "resnet56": lambda: models.resnet_cifar(56),
    "resnet20 B folded": lambda: models.resnet_cifar(20, "B", folded=True),
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "vgg16": models.vgg16_cifar,
    "mobilenet_v2": lambda: models.mobilenet_v2(input_size=32),
    "unet": models.unet,
    "lenet5": models.lenet5,
}


@pytest.fixture(scope="module")
def network(groups_of):
    known = {}

    def groups(name):
        if name not in known:
            known[name] = groups_of(BUILDERS[name]())
        return known[name]

    return groups


def matching(groups, pattern):
    return {g.name for g in groups.free if re.fullmatch(pattern, g.name)}


# --- what is touched --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pattern", "count"),
    [
        ("resnet56", r"layer\d\.\d\.conv1", 27),
        ("resnet20 B folded", r"layer\d\.\d\.conv1", 9),
        ("resnet34", r"layer\d\.\d\.conv1", 16),
        ("resnet50", r"layer\d\.\d\.conv[12]", 32),
    ],
)
def test_in_residual_networks_the_inner_convolutions_are_touched(network, name, pattern, count):
    groups = network(name)
    inner = inner_convolutions(groups)
    assert inner == matching(groups, pattern)
    assert len(inner) == count
    assert first_convolutions(groups) == convolutions(groups) == inner


def test_in_plain_networks_thinet_touches_the_first_ten_convolutions(network):
    groups = network("vgg16")
    features = [g.name for g in groups.free if g.name.startswith("features.")]
    assert len(features) == 13
    assert inner_convolutions(groups) == frozenset()
    assert first_convolutions(groups) == set(features[:10])
    assert convolutions(groups) == set(features)


def test_stages_start_where_the_map_or_the_width_changes(network):
    """Li et al. skip 20 and 38 of ResNet-56, and 8, 16 and 28 of ResNet-34, counted from 1 on the main path."""
    for name, expected in (("resnet56", [20, 38]), ("resnet34", [8, 16, 28])):
        groups = network(name)
        inner = [g.name for g in groups.free if g.name in inner_convolutions(groups)]
        starts = stage_starts(groups)
        assert [2 + 2 * i for i, name in enumerate(inner) if name in starts] == expected
    groups = network("vgg16")
    features = [g.name for g in groups.free if g.name.startswith("features.")]
    assert [i for i, name in enumerate(features, 1) if name in stage_starts(groups)] == [3, 5, 8, 11]


def test_zeros_are_counted_where_a_relu_follows(network):
    assert rectified(network("resnet56")) == inner_convolutions(network("resnet56"))
    assert rectified(network("vgg16")) == {g.name for g in network("vgg16").free}
    assert rectified(network("lenet5")) == {"fc1"}  # LeNet's convolutions have none
    linear = matching(network("mobilenet_v2"), r"features\.\d+\.conv\.[23]")
    assert linear
    assert not linear & rectified(network("mobilenet_v2"))


def test_names_do_not_matter(groups_of):
    model = models.resnet_cifar(20)
    names = {tensor.name: f"t{number}" for number, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        node.input[:] = [names.get(name, name) for name in node.input]
    groups = groups_of(model)
    assert not matching(groups, "layer.*")
    assert len(first_convolutions(groups)) == 9


# --- the table --------------------------------------------------------------------------------------------------------


def test_what_stands_out_is_most_sensitive():
    assert most_sensitive({"a": 1.0, "b": 1.1, "c": 5.0, "d": 0.9}) == {"c"}
    assert most_sensitive({"a": 1.0, "b": 1.0}) == frozenset()
    values = dict(enumerate(np.random.default_rng(0).random(50)))
    mean, std = np.mean(list(values.values())), np.std(list(values.values()))
    assert most_sensitive(values) == {k for k, v in values.items() if v > mean + std}


def test_an_unknown_preset_is_refused_with_those_that_are_known():
    assert {"thinet", "li", "apoz", "li:resnet56-b", "ccp", "ccp-ac", "taylor", "nisp"} <= set(PRESETS)
    with pytest.raises(UsageError, match="there is no 'best'") as error:
        make_preset("best")
    assert "thinet, li, li:resnet56-a" in error.value.fix


def test_zeros_are_not_counted_where_something_else_reads_the_values_before_the_relu(groups_of):
    net = NetBuilder("two ways", (3, 4, 4))
    rectified_alone = net.relu(net.conv(net.input, "one", 6, 3), "relu1")
    linear = net.conv(rectified_alone, "two", 6, 3)
    both = net.add(net.conv(net.relu(linear, "relu2"), "three", 5, 1), net.conv(linear, "four", 5, 1), "sum")
    groups = groups_of(net.model(net.conv(net.relu(both, "relu3"), "head", 2, 1)))
    assert {group.name for group in groups.free} >= {"one", "two"}
    assert rectified(groups) == {"one"}


def test_what_is_not_said_is_as_in_the_papers():
    """Zhuang et al. 2018: lambda 1, three losses, a rate of 0.01, epsilon 1e-3, one channel a choice.

    He et al. 2018, AMC: at least a fifth of a layer, 100 episodes at random, paid by the error; Hu et al. 2016: one
    deviation.
    """
    dcp = make_criterion("dcp-adapt")
    assert (dcp.weight, dcp.losses, dcp.rate, dcp.at_once, dcp.tolerance) == (1, 3, 0.01, 1, 1e-3)
    amc = make_method("amc")
    assert (amc.least, amc.warmup, amc.reward) == (0.2, 100, "error")
    assert make_method("trim").deviations == 1
    assert make_criterion("thinet:centred=no") != make_criterion("thinet")
