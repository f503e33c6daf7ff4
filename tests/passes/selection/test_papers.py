"""Explicit widths give the published reductions: of our cost model, our reference networks and our reading at once.

Li et al., Pruning filters for efficient ConvNets, ICLR 2017, table 1. "FLOP" there are multiply-accumulates. In the
residual networks the first convolution of each block is pruned. Convolutions on the main path count from 1, so these
are the even ones; the skipped numbers of section 4 are the blocks at which the width or the map changes. A layer of
which p % go keeps floor((1 - p) n) filters: rounding to the nearest misses ResNet-56-A by 1.3 points.

Luo et al., ThiNet, ICCV 2017: the first two convolutions of each block of ResNet-50 keep 70, 50 or 30 %, again rounded
down. The stride stands in a block's first 1x1 convolution, as in the Caffe model that was pruned.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.channels.groups import Key
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.allocate import allocate
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.criteria import make_criterion
from onnx_prune.passes.selection.presets import PRESETS
from onnx_prune.passes.selection.ranking import Evidence

POINTS = 0.5  # how near, in percent of the whole


def reduction(cost, shares):
    """Percent of the MACs and of the parameters that go when the groups of these names keep these shares."""
    kept = allocate(cost, {}, Budget(channels={name.replace(".", r"\."): share for name, share in shares.items()}))
    return tuple(100 - 100 * measure(kept) / measure(cost.units) for measure in (cost.macs, cost.params))


def first_convolutions(blocks, removed, skipped):
    """Name -> kept share of the first convolution of each block: `removed` percent of stage i but for those skipped."""
    shares, number = {}, 2
    for stage, count in enumerate(blocks):
        for block in range(count):
            if number not in skipped and removed[stage]:
                shares[f"layer{stage + 1}.{block}.conv1"] = 1 - removed[stage] / 100
            number += 2
    return shares


@pytest.fixture(scope="module")
def cost_of(groups_of):
    known = {}

    def cost(name, build):
        if name not in known:
            known[name] = cost_model(groups_of(build()))
        return known[name]

    return cost


NETWORKS = {
    "ResNet-56": (lambda: models.resnet_cifar(56), [9, 9, 9]),
    "ResNet-110": (lambda: models.resnet_cifar(110), [18, 18, 18]),
    "ResNet-34": (models.resnet34, [3, 4, 6, 3]),
}
LI = [
    ("ResNet-56", "A", [10, 10, 10], {16, 20, 38, 54}, 10.4),
    ("ResNet-56", "B", [60, 30, 10], {16, 18, 20, 34, 38, 54}, 27.6),
    ("ResNet-110", "A", [50, 0, 0], {36}, 15.9),
    ("ResNet-110", "B", [50, 40, 30], {36, 38, 74}, 38.6),
    ("ResNet-34", "A", [30, 30, 30, 0], {2, 8, 14, 16, 26, 28, 30, 32}, 15.5),
    ("ResNet-34", "B", [50, 60, 40, 0], {2, 8, 14, 16, 26, 28, 30, 32}, 24.2),
]


@pytest.mark.parametrize(
    ("network", "variant", "removed", "skipped", "published"), LI, ids=[f"{r[0]}-{r[1]}" for r in LI]
)
def test_li_residual_networks(network, variant, removed, skipped, published, cost_of):
    build, blocks = NETWORKS[network]
    cost = cost_of(network, build)
    macs, _ = reduction(cost, first_convolutions(blocks, removed, skipped))
    assert macs == pytest.approx(published, abs=POINTS)
    without_skips, _ = reduction(cost, first_convolutions(blocks, removed, set()))
    assert without_skips - published > POINTS  # the skipped layers matter: the claim can fail


def test_li_vgg16(cost_of):
    """Half of the filters of convolutions 1 and 8 to 13."""
    cost = cost_of("VGG-16", models.vgg16_cifar)
    layers = [group.name for group in cost.groups.free if group.name.startswith("features.")]
    assert len(layers) == 13
    macs, params = reduction(cost, {name: 0.5 for i, name in enumerate(layers, 1) if i == 1 or i >= 8})
    assert macs == pytest.approx(34.2, abs=0.05)
    assert params == pytest.approx(64.0, abs=0.05)
    assert reduction(cost, {name: 0.5 for i, name in enumerate(layers, 1) if i >= 8})[0] < 34.2 - POINTS


@pytest.mark.parametrize(
    ("preset", "network", "published"),
    [
        ("resnet56-a", "ResNet-56", 10.4),
        ("resnet56-b", "ResNet-56", 27.6),
        ("resnet110-a", "ResNet-110", 15.9),
        ("resnet110-b", "ResNet-110", 38.6),
        ("resnet34-a", "ResNet-34", 15.5),
        ("resnet34-b", "ResNet-34", 24.2),
        ("resnet34-c", "ResNet-34", 7.5),
        ("vgg16-a", "VGG-16", 34.2),
    ],
)
def test_the_presets_of_li_are_the_published_networks(preset, network, published, cost_of):
    build = NETWORKS[network][0] if network in NETWORKS else models.vgg16_cifar
    cost = cost_of(network, build)
    shares = PRESETS[f"li:{preset}"].shares(cost.groups)
    assert reduction(cost, shares)[0] == pytest.approx(published, abs=POINTS)
    for row in LI:
        if f"{row[0]}-{row[1]}".lower().replace("resnet-", "resnet") == preset:
            assert shares == first_convolutions(NETWORKS[network][1], *row[2:4])


@pytest.mark.parametrize(
    ("preset", "network"),
    [("resnet56-a", "ResNet-110"), ("resnet34-a", "ResNet-56"), ("vgg16-a", "ResNet-56"), ("resnet56-b", "VGG-16")],
)
def test_a_preset_of_another_network_is_refused(preset, network, cost_of):
    cost = cost_of(network, NETWORKS[network][0] if network in NETWORKS else models.vgg16_cifar)
    with pytest.raises(UsageError, match="this preset is for"):
        PRESETS[f"li:{preset}"].shares(cost.groups)


@pytest.mark.parametrize(("kept", "published"), [(0.7, 36.8), (0.5, 55.8), (0.3, 71.5)])
def test_thinet_resnet50(kept, published, cost_of):
    cost = cost_of("ResNet-50", lambda: models.resnet50(stride_in_1x1=True))
    inner = [g.name for g in cost.groups.free if g.name.startswith("layer") and g.name[-5:] in ("conv1", "conv2")]
    assert len(inner) == 32
    macs, _ = reduction(cost, dict.fromkeys(inner, kept))
    assert macs == pytest.approx(published, abs=0.1)
    assert reduction(cost, dict.fromkeys(inner[1:], kept))[0] < macs - 0.1


def test_resnet34_c_takes_the_channels_by_the_projection_s_filters(cost_of):
    """Li et al., section 3.3: the shortcut's filters decide, and the sum's channels go everywhere."""
    groups = cost_of("ResNet-34", models.resnet34).groups
    preset = PRESETS["li:resnet34-c"]
    ((name, _),) = preset.shares(groups).items()
    evidence = Evidence(groups)
    found = make_criterion(preset.criterion).rank(groups[name], evidence).order
    norms = np.abs(evidence.weight(Key("layer3.0.downsample.0.weight", "", 0))).sum((1, 2, 3))
    assert found.tolist() == np.argsort(norms, kind="stable").tolist()
    assert found.tolist() != make_criterion("l1").rank(groups[name], evidence).order.tolist()
