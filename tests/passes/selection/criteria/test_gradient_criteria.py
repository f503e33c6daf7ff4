"""Criteria on gradients and on responses order units as their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.models import NetBuilder, with_initializers
from onnx_prune.passes.algebra.infinite_selection import infinite_selection
from onnx_prune.passes.algebra.moments import Moments, MomentsSet
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.channels.groups import Key
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.allocate import allocate, select
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.criteria.gradients.ccp import Ccp
from onnx_prune.passes.selection.criteria.gradients.ccp_ac import CcpAc
from onnx_prune.passes.selection.criteria.gradients.fisher import Fisher
from onnx_prune.passes.selection.criteria.gradients.taylor import Taylor, map_mflops
from onnx_prune.passes.selection.criteria.moments.nisp import Nisp, propagated
from onnx_prune.passes.selection.criteria.weights.l2 import L2
from onnx_prune.passes.selection.methods import Global
from onnx_prune.passes.selection.ranking import Evidence, rank_groups

U = np.array([[1.0, -4, 2, 0], [-1, 2, 2, 1], [1, 2, 2, 1], [-1, 0, 2, 0]])


@pytest.fixture
def chain(groups_of):
    """conv0 (4 channels) -> conv1 (4) -> head (2), 1x1, with weights of their own."""
    net = NetBuilder("chain", (3, 2, 2))
    x = net.relu(net.conv(net.input, "conv0", 4, 1, bias=False), "relu0")
    x = net.relu(net.conv(x, "conv1", 4, 1, bias=False), "relu1")
    model = net.model(net.conv(x, "head", 2, 1))
    weights = {"conv1.weight": np.arange(16.0).reshape(4, 4) - 8, "head.weight": [[1, -2, 0, 3], [0, 1, -1, 0]]}
    shaped = {name: np.asarray(values, np.float32)[..., None, None] for name, values in weights.items()}
    return groups_of(with_initializers(model, shaped))


def ranked(criterion, groups, gradients=None):
    return criterion.rank(groups["conv0"], Evidence(groups, gradients=gradients or {"conv0": U}))


def test_taylor_squares_each_sample_or_the_mean_of_a_batch(chain):
    alone, pairs, all_ = (ranked(Taylor(batch=n), chain) for n in (1, 2, 4))
    assert alone.order.tolist() == [3, 0, 2, 1]
    assert alone.harm.tolist() == [0.5, 1.5, 5.5, 11.5]  # means of squares 1, 6, 4, 1/2
    assert pairs.order.tolist() == [0, 3, 1, 2]
    assert pairs.harm.tolist() == [0, 0.25, 1.25, 5.25]  # of (0, -1, 2, 1/2) and (0, 1, 2, 1/2)
    assert all_.order.tolist() == [0, 1, 3, 2]
    assert all_.harm.tolist() == [0, 0, 0.25, 4.25]


def test_the_activation_form_of_taylor_is_the_mean_size_over_the_group_s_norm(chain):
    ranking = ranked(Taylor(form="activation"), chain)
    assert ranking.order.tolist() == [3, 0, 1, 2]
    np.testing.assert_allclose(ranking.harm, np.cumsum([0.5, 1, 2, 2]) / np.sqrt(0.25 + 1 + 4 + 4), rtol=1e-15)
    assert ranking.comparable, "the paper's norm is what makes groups comparable"


def test_taylor_takes_the_flops_of_a_map_off_its_score(chain):
    """conv0: 2 * 4 positions * (3 + 1), conv1: 2 * 4 * (4 + 1); one order over both groups, least first."""
    gradients = {"conv0": U, "conv1": U[:, ::-1]}
    evidence, weight = Evidence(chain, gradients=gradients), 3e4
    harms = {name: Taylor(form="activation", flops=weight).rank(chain[name], evidence) for name in gradients}
    size = np.array([1, 2, 2, 0.5]) / np.sqrt(1 + 4 + 4 + 0.25)
    scores = {"conv0": size - weight * 32e-6, "conv1": size[::-1] - weight * 40e-6}
    found = {name: np.empty(4) for name in scores}
    for name, ranking in harms.items():
        found[name][ranking.order] = np.diff(ranking.harm, prepend=0)
        assert ranking.comparable
        assert (ranking.harm >= 0).all()
    both, wanted = (np.concatenate([values["conv0"], values["conv1"]]) for values in (found, scores))
    np.testing.assert_allclose(both - both[0], wanted - wanted[0], atol=1e-12)
    kept = allocate(cost_model(chain), harms, Budget(channels=0.5), method=Global(protect=0))
    assert dict(zip([g.name for g in chain.groups], kept.tolist(), strict=True))["conv1"] < 3


def test_a_map_costs_what_every_layer_that_makes_it_spends_on_one_of_its_channels(groups_of):
    """2 h w (c k^2 + 1) / 1e6, the paper's appendix; of a residual stream the sum over the layers that add to it."""
    net = NetBuilder("residual", (3, 8, 8))
    stem = net.relu(net.conv(net.input, "stem", 4, 3, stride=2, bias=False), "relu0")
    inner = net.relu(net.conv(stem, "inner", 6, 3, bias=False), "relu1")
    total = net.relu(net.add(stem, net.conv(inner, "branch", 4, 1, bias=False), "sum"), "relu2")
    deep = net.relu(net.conv(total, "deep", 5, 3, stride=2, bias=False), "relu3")
    groups = groups_of(net.model(net.conv(deep, "head", 2, 1)))
    costs = map_mflops(Evidence(groups))
    found = {group.name: set(costs[group.components].round(12)) for group in groups.free}
    stream = 2 * 16 * (3 * 9 + 1) + 2 * 16 * (6 + 1)
    by_hand = {"stem": stream, "inner": 2 * 16 * (4 * 9 + 1), "deep": 2 * 4 * (4 * 9 + 1)}
    assert found == {name: {round(flops / 1e6, 12)} for name, flops in by_hand.items()}


def test_fisher_is_half_the_mean_square(chain):
    ranking = ranked(Fisher(), chain)
    assert ranking.order.tolist() == [3, 0, 2, 1]
    assert ranking.harm.tolist() == [0.25, 0.75, 2.75, 5.75]


def test_ccp_sees_that_units_make_up_for_one_another(chain):
    signs = np.array([[1.0], [-1], [1], [-1]])
    gradients = {"conv0": signs * [4, 3, -3.5, 3.25]}
    assert ranked(Fisher(), chain, gradients).order.tolist() == [1, 3, 2, 0]
    ranking = ranked(Ccp(), chain, gradients)
    assert ranking.order.tolist() == [1, 2, 3, 0]
    assert ranking.harm.tolist() == [4.5, 4.5, 4.5, 6.75**2 / 2]  # 0.125 and 3.78125 on the way


def test_ccp_exchanges_pairs_once_the_count_is_known(chain):
    gradients = np.array([[1.0, -2, 1, 0.9], [1, -2, 1, -0.9]])
    evidence = Evidence(chain, gradients={"conv0": gradients})
    kept = np.array([1 if g.name == "conv0" else g.units for g in chain.groups])
    greedy, found = (select(chain, kept, Ccp(exchanges=n), evidence)["conv0"] for n in (0, -1))
    loss = {T: np.square(gradients[:, list(T)].sum(1)).mean() / 2 for T in (greedy, found)}
    assert loss[found] <= loss[greedy]
    assert found == (0, 1, 2)
    assert loss[found] == 0


def test_the_gradient_s_mean_counts_where_that_is_asked_for(chain):
    small = {"conv0": U / 2}  # u: 0, 0, 1, 1/4; S_ii / 2: 1/8, 3/4, 1/2, 1/16
    assert ranked(Ccp(linear=True), chain, small).order[0] == 2
    assert ranked(Ccp(), chain, small).order[0] == 3


def test_losses_are_compared_over_groups_as_they_are(chain):
    large, small = U * 10, U
    evidence = Evidence(chain, gradients={"conv0": large, "conv1": small})
    cost = cost_model(chain)
    kept = {}
    for criterion in (Fisher(), Taylor(form="activation")):
        rankings = rank_groups(criterion, evidence)
        found = allocate(cost, rankings, Budget(channels=0.5), method=Global())
        kept[type(criterion)] = dict(zip([g.name for g in chain.groups], found.tolist(), strict=True))
    assert kept[Fisher]["conv0"] == 3
    assert kept[Fisher]["conv1"] == 1
    assert kept[Taylor]["conv0"] == kept[Taylor]["conv1"] == 2  # each group by its own norm


def test_the_l2_norm_of_taylor_survives_the_one_ranking_of_all(chain):
    """Over the l2 norms conv0's weak units are the least, 0.27 against 0.29; over the means conv1's, 0.62 to 0.63."""
    evidence = Evidence(chain, gradients={"conv0": np.array([[10.0, 3, 3, 3]]), "conv1": np.array([[2, 0.9, 2, 0.9]])})
    rankings = rank_groups(Taylor(form="activation"), evidence)
    kept = allocate(cost_model(chain), rankings, Budget(channels=6 / 8), method=Global())
    widths = dict(zip([g.name for g in chain.groups], kept.tolist(), strict=True))
    assert (widths["conv0"], widths["conv1"]) == (2, 4)


def test_a_group_without_gates_is_ranked_by_its_weights(chain):
    evidence = Evidence(chain, gradients={})
    for criterion in (Taylor(), Fisher(), Ccp(), CcpAc()):
        assert np.array_equal(
            criterion.rank(chain["conv0"], evidence).order, L2().rank(chain["conv0"], Evidence(chain)).order
        )


def test_without_gradients_the_error_says_what_to_give(chain):
    with pytest.raises(UsageError, match="needs gradients"):
        Fisher().rank(chain["conv0"], Evidence(chain))


def test_auxiliary_classifiers_are_asked_for_by_ccp_ac_alone():
    assert (Taylor().auxiliary, Ccp().auxiliary, CcpAc().auxiliary, CcpAc(classifiers=3).auxiliary) == (0, 0, 2, 3)


def responses(groups, covariance):
    """Moments of the last layer's input alone."""
    last = max(groups.labelled.consumers, key=lambda c: c.node)
    name = groups.labelled.graph.gs.nodes[last.node].outputs[0].name
    mean = np.zeros(len(covariance))
    return MomentsSet("", {name: (Moments(9, mean, np.asarray(covariance, float), len(covariance), 1),)})


def test_nisp_carries_the_scores_of_the_responses_through_the_weights(chain):
    covariance = np.diag([4.0, 1, 9, 1])
    evidence = Evidence(chain, moments=responses(chain, covariance))
    final = infinite_selection(covariance)
    weights = np.abs(np.arange(16.0).reshape(4, 4) - 8)
    for name, scores in (("conv1", final), ("conv0", weights.T @ final)):
        ranking = Nisp().rank(chain[name], evidence)
        assert ranking.order.tolist() == np.argsort(scores, kind="stable").tolist()
        np.testing.assert_allclose(ranking.harm, np.cumsum(np.sort(scores)), rtol=1e-6)


def scores_of(groups, evidence):
    """What the layers read -> the scores of its channels' units, by the name of the layer's weight."""
    scores = propagated(evidence)
    return {c.weight: scores[groups.component[c.labels]] for c in groups.labelled.consumers if (c.labels >= 0).all()}


def test_nisp_adds_at_residual_sums(groups_of):
    net = NetBuilder("residual", (3, 2, 2))
    stem = net.relu(net.conv(net.input, "stem", 4, 1, bias=False), "relu0")
    inner = net.relu(net.conv(stem, "inner", 6, 1, bias=False), "relu1")
    branch = net.conv(inner, "branch", 4, 1, bias=False)
    groups = groups_of(net.model(net.conv(net.add(stem, branch, "sum"), "head", 2, 1)))
    covariance = np.diag([4.0, 1, 9, 2])
    evidence = Evidence(groups, moments=responses(groups, covariance))
    W = {name: np.abs(evidence.weight(Key(f"{name}.weight", "", 0))[:, :, 0, 0]) for name in ("inner", "branch")}
    final, found = infinite_selection(covariance), scores_of(groups, evidence)
    of_inner = W["branch"].T @ final
    np.testing.assert_allclose(found["branch.weight"], of_inner, rtol=1e-6)
    np.testing.assert_allclose(found["inner.weight"], final + W["inner"].T @ of_inner, rtol=1e-6)


def test_nisp_sums_the_kernels_positions_so_that_larger_kernels_count_more(groups_of):
    """What a stream gets from a 3x3 and from a 1x1 layer adds up in one unit: nine positions, or one."""
    net = NetBuilder("kernels", (3, 4, 4))
    stem = net.relu(net.conv(net.input, "stem", 4, 1, bias=False), "relu0")
    wide, narrow = net.conv(stem, "wide", 5, 3, bias=False), net.conv(stem, "narrow", 5, 1, bias=False)
    groups = groups_of(net.model(net.conv(net.relu(net.add(wide, narrow, "sum"), "relu1"), "head", 2, 1)))
    covariance = np.diag([4.0, 1, 9, 2, 3])
    evidence = Evidence(groups, moments=responses(groups, covariance))
    final = infinite_selection(covariance)
    W = [np.abs(evidence.weight(Key(f"{name}.weight", "", 0))).sum((2, 3)) for name in ("wide", "narrow")]
    np.testing.assert_allclose(scores_of(groups, evidence)["wide.weight"], (W[0] + W[1]).T @ final, rtol=1e-6)


def test_nisp_shares_a_unit_s_score_among_its_channels(groups_of):
    net = NetBuilder("grouped", (3, 2, 2))
    stem = net.relu(net.conv(net.input, "stem", 6, 1, bias=False), "relu0")
    grouped = net.relu(net.conv(stem, "grouped", 4, 1, bias=False, groups=2), "relu1")
    groups = groups_of(net.model(net.conv(grouped, "head", 2, 1)))
    covariance = np.diag([4.0, 1, 9, 2])
    evidence = Evidence(groups, moments=responses(groups, covariance))
    final, W = infinite_selection(covariance), np.abs(evidence.weight(Key("grouped.weight", "", 0))[:, :, 0, 0])
    pairs = final[:2] + final[2:]  # positions of both groups
    np.testing.assert_allclose(scores_of(groups, evidence)["head.weight"], np.tile(pairs, 2), rtol=1e-12)
    of_stem = W[:2].T @ (pairs / 2) + W[2:].T @ (pairs / 2)
    np.testing.assert_allclose(scores_of(groups, evidence)["grouped.weight"], np.tile(of_stem, 2), rtol=1e-6)


def test_nisp_wants_responses(chain):
    with pytest.raises(UsageError, match="needs the moments"):
        Nisp().rank(chain["conv0"], Evidence(chain))


def test_infinite_selection_sums_over_paths_of_every_length():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 5)) @ rng.standard_normal((5, 5))
    covariance = np.cov(X.T)
    deviation = np.sqrt(covariance.diagonal())
    correlation = np.abs(np.corrcoef(X.T))
    A = 0.5 * np.maximum.outer(deviation, deviation) / deviation.max() + 0.5 * (1 - correlation)
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    paths, power = np.zeros(5), np.ones(5)
    for _ in range(400):
        power = A @ power
        paths += power
    np.testing.assert_allclose(infinite_selection(covariance), paths, rtol=1e-10)
