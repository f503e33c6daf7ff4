"""Criteria order units as their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune import models
from onnx_prune.models import NetBuilder, with_initializers
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.allocate import select
from onnx_prune.passes.selection.criteria import criteria, make_criterion
from onnx_prune.passes.selection.criteria.weights._magnitude import projections
from onnx_prune.passes.selection.criteria.weights.bn_scale import BnScale
from onnx_prune.passes.selection.criteria.weights.fpgm import Fpgm
from onnx_prune.passes.selection.criteria.weights.l1 import L1
from onnx_prune.passes.selection.criteria.weights.l2 import L2
from onnx_prune.passes.selection.criteria.weights.random import Random
from onnx_prune.passes.selection.ranking import Evidence, rank_groups
from onnx_prune.passes.selection.words import word


def chain(weights, norm=None):
    """conv0 -> conv1 -> ... -> head, 1x1 convolutions on a 2x2 map, with these weights (n, c) under their names."""
    net = NetBuilder("chain", (weights["conv0"].shape[1], 2, 2))
    x = net.input
    for name, values in weights.items():
        x = net.conv(x, name, len(values), 1, bias=False, norm=norm if name == "conv0" else None)
        x = net.relu(x, f"{name}.relu")
    model = net.model(net.conv(x, "head", 2, 1))
    return with_initializers(model, {f"{k}.weight": v.astype(np.float32)[..., None, None] for k, v in weights.items()})


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_criteria_are_found_under_their_command_line_words():
    assert {"l1": L1, "l2": L2, "fpgm": Fpgm, "bn-scale": BnScale, "random": Random}.items() <= criteria().items()


@pytest.mark.parametrize("name", ["l1", "l2", "fpgm", "bn-scale", "random"])
def test_a_ranking_orders_all_units_and_its_harm_never_falls(name, groups_of):
    groups = groups_of(models.resnet_cifar(20))
    for ranking, again, group in zip(
        *(rank_groups(criteria()[name](), Evidence(groups)).values() for _ in range(2)), groups.free, strict=True
    ):
        assert sorted(ranking.order) == list(range(group.units))
        assert (np.diff(ranking.harm, prepend=0) >= 0).all()
        assert np.array_equal(ranking.order, again.order)


def test_norms_are_summed_over_the_filter(groups_of):
    weights = np.array([[3, 0, 0], [-1, 1, 1.5], [0, 0, 0.5]])
    groups = groups_of(chain({"conv0": weights}))
    group, evidence = groups["conv0"], Evidence(groups)
    by_l1, by_l2 = L1().rank(group, evidence), L2().rank(group, evidence)
    assert by_l1.order.tolist() == [2, 0, 1]
    assert by_l1.harm.tolist() == [0.5, 3.5, 7]
    assert by_l2.order.tolist() == [2, 1, 0]
    np.testing.assert_allclose(by_l2.harm, np.cumsum([0.5, np.sqrt(4.25), 3]), rtol=1e-15)


def test_equal_scores_keep_the_order_of_the_units(groups_of):
    groups = groups_of(chain({"conv0": np.ones((40, 3))}))
    for criterion in (L1(), L2(), Fpgm()):
        assert criterion.rank(groups["conv0"], Evidence(groups)).order.tolist() == list(range(40))


def test_residual_channels_sum_the_norms_of_every_convolution_that_makes_them(groups_of):
    model = models.resnet_cifar(20, "B")
    weights = {t.name: np.frombuffer(t.raw_data, np.float32).reshape(t.dims) for t in model.graph.initializer}
    groups = groups_of(model)
    group = groups["layer2.0.conv2"]
    makers = ["layer2.0.conv2", "layer2.0.shortcut.0", "layer2.1.conv2", "layer2.2.conv2"]
    scores = sum(np.abs(weights[f"{name}.weight"].astype(float)).sum((1, 2, 3)) for name in makers)
    ranking = L1().rank(group, Evidence(groups))
    assert ranking.order.tolist() == np.argsort(scores).tolist()
    np.testing.assert_allclose(ranking.harm, np.cumsum(np.sort(scores)), rtol=1e-6)


def test_the_projection_shortcut_alone_decides_where_it_is_asked_to(groups_of):
    model = models.resnet_cifar(20, "B")
    weights = {t.name: np.frombuffer(t.raw_data, np.float32).reshape(t.dims) for t in model.graph.initializer}
    groups = groups_of(model)
    scores = np.abs(weights["layer2.0.shortcut.0.weight"]).sum((1, 2, 3))
    ranking = L1(residual="shortcut").rank(groups["layer2.0.conv2"], Evidence(groups))
    assert ranking.order.tolist() == np.argsort(scores).tolist()
    without = groups["layer1.0.conv1"]
    expected = L1().rank(without, Evidence(groups)).order
    assert np.array_equal(L1(residual="shortcut").rank(without, Evidence(groups)).order, expected)


def test_the_last_convolution_of_a_bottleneck_is_no_projection(groups_of):
    groups = groups_of(models.resnet50(input_size=32))
    for stage in (1, 2, 3, 4):
        (key,) = projections(groups[f"layer{stage}.0.conv3"], groups.labelled)
        assert key[0] == f"layer{stage}.0.downsample.0.weight"


def test_greedy_leaves_out_kernels_whose_input_is_gone(groups_of, rng):
    first = np.array([[1.0, 1, 1], [9, 9, 9], [1, 1, 1], [9, 9, 9]])
    second = np.array([[8.0, 1, 8, 1], [1, 2, 1, 2], [0, 5, 0, 5]])  # without inputs 0 and 2: 2, 4, 10
    groups = groups_of(chain({"conv0": first, "conv1": second}))
    kept = cost_model(groups).units.copy()
    for name, count in (("conv0", 2), ("conv1", 2)):
        kept[[g.name for g in groups.groups].index(name)] = count
    assert select(groups, kept, L1(), Evidence(groups)) == {"conv0": (0, 2), "conv1": (1,)}
    assert select(groups, kept, L1(greedy=True), Evidence(groups)) == {"conv0": (0, 2), "conv1": (0,)}


def test_fpgm_removes_what_lies_nearest_to_all_others(groups_of, rng):
    weights = rng.standard_normal((12, 7)).astype(np.float32)
    groups = groups_of(chain({"conv0": weights}))
    w = weights.astype(float)
    distances = [sum(np.linalg.norm(a - b) for b in w) for a in w]
    ranking = Fpgm().rank(groups["conv0"], Evidence(groups))
    assert ranking.order.tolist() == np.argsort(distances).tolist()
    np.testing.assert_allclose(ranking.harm, np.cumsum(np.sort(distances)), rtol=1e-12)


def test_bn_scale_orders_by_gamma_and_is_no_norm(groups_of, rng):
    model = chain({"conv0": rng.standard_normal((5, 3))}, norm="bn")
    model = with_initializers(model, {"bn.weight": np.array([3, -1, 2, 0.5, -4], np.float32)})
    groups = groups_of(model)
    ranking = BnScale().rank(groups["conv0"], Evidence(groups))
    assert ranking.order.tolist() == [3, 1, 2, 0, 4]
    assert ranking.harm.tolist() == [0.5, 1.5, 3.5, 6.5, 10.5]


def test_bn_scale_falls_back_to_the_norm_in_groups_without_batch_normalization(groups_of, rng):
    groups = groups_of(chain({"conv0": rng.standard_normal((5, 3)), "conv1": rng.standard_normal((6, 5))}, norm="bn"))
    group, evidence = groups["conv1"], Evidence(groups)
    assert np.array_equal(BnScale().rank(group, evidence).order, L1().rank(group, evidence).order)


def test_bn_scale_says_that_batch_normalization_was_folded(groups_of):
    groups = groups_of(models.resnet_cifar(20, folded=True))
    with pytest.raises(UsageError, match="folded"):
        BnScale().rank(groups.free[0], Evidence(groups))


def test_random_depends_on_the_seed_and_the_name_alone(groups_of, rng):
    weights = {"conv0": rng.standard_normal((64, 3)), "conv1": rng.standard_normal((64, 64))}
    groups, other = groups_of(chain(weights)), groups_of(chain({"conv0": weights["conv0"]}))
    orders = {
        key: Random().rank(g["conv0" if key != "name" else "conv1"], Evidence(g, seed=key == "seed")).order.tolist()
        for key, g in (("base", groups), ("other network", other), ("seed", groups), ("name", groups))
    }
    assert orders["base"] == orders["other network"]
    assert orders["base"] != orders["seed"]
    assert orders["base"] != orders["name"]


def test_half_precision_weights_do_not_overflow(groups_of):
    model = chain({"conv0": np.array([[300.0, 300, 300], [299, 299, 299], [301, 301, 301]])})
    for tensor in model.graph.initializer:
        values = np.frombuffer(tensor.raw_data, np.float32).astype(np.float16)
        tensor.raw_data, tensor.data_type = values.tobytes(), 10
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = 10
    groups = groups_of(model)
    assert L2().rank(groups["conv0"], Evidence(groups)).order.tolist() == [1, 0, 2]


def test_an_unknown_criterion_is_refused_with_the_ones_there_are():
    assert make_criterion("bn-scale") == BnScale()
    assert make_criterion(L1(greedy=True)) == L1(greedy=True)
    assert word(BnScale()) == "bn-scale"
    with pytest.raises(UsageError, match=r"choose one of .*l1"):
        make_criterion("l0")


def test_what_is_scored_for_the_whole_network_is_kept_by_the_function_that_scores(groups_of):
    evidence = Evidence(groups_of(models.lenet5()))
    calls = []

    def ones(known):
        calls.append(known)
        return np.ones(3)

    assert evidence.scores(ones).sum() == evidence.scores(ones).sum() == 3
    assert evidence.scores(lambda known: np.zeros(3)).sum() == 0
    assert len(calls) == 1
