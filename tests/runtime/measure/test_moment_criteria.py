"""Criteria on moments, from the graph to the ranking, against what they say on the activations themselves."""

import numpy as np
import onnx
import pytest
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.algebra.removal import refit_harm
from onnx_prune.passes.channels.affine import affine_consumers
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.passes.selection.allocate import select
from onnx_prune.passes.selection.criteria import criteria, make_criterion
from onnx_prune.passes.selection.criteria.moments._consumers import group_objectives
from onnx_prune.passes.selection.criteria.moments.thinet import Thinet
from onnx_prune.passes.selection.ranking import Evidence, rank_groups
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate, sample_rows

ON_MOMENTS = ("apoz", "fluctuation", "lasso", "mean-activation", "nisp", "obs", "thinet", "thinet-omp")


@pytest.fixture(scope="module")
def digits():
    model = onnx.load(digits_model())
    graph = load(model)
    groups = channel_groups(label_channels(graph, tensor_facts(graph)))
    data = open_data(str(digits_data()[1]), model_inputs(model), samples=128, batch=64)
    how = Calibration(activations=True)
    return groups, data, how, calibrate(groups.labelled, data, how=how)


@pytest.mark.parametrize("word", ON_MOMENTS)
def test_every_unit_is_ranked_once_and_harm_never_falls(digits, word):
    groups, _, _, moments = digits
    for group in groups.free:
        ranking = rank_groups(make_criterion(word), Evidence(groups, moments=moments))[group.name]
        assert sorted(ranking.order.tolist()) == list(range(group.units))
        assert (np.diff(ranking.harm) >= 0).all()


def test_the_list_of_criteria_is_complete():
    on_gradients = {"ccp", "ccp-ac", "fisher", "taylor"}  # tests/runtime/torch/gates/test_gradients.py
    assert set(ON_MOMENTS) | on_gradients | {"bn-scale", "fpgm", "l1", "l2", "random"} == set(criteria())


def test_without_moments_the_error_says_what_to_give(digits):
    groups = digits[0]
    with pytest.raises(UsageError, match="give --calibration"):
        rank_groups(make_criterion("thinet"), Evidence(groups))


def one_reader(groups):
    """A group that one consumer reads, and that consumer."""
    for group in groups.free:
        mine = [
            x for x in affine_consumers(groups.labelled) if np.isin(groups.component[x.inputs], group.components).any()
        ]
        if len(mine) == 1 and len(mine[0].inputs) == group.units:
            return group, mine[0]
    raise AssertionError("no such group")


def test_thinet_is_the_paper_s_greedy_on_the_sampled_rows(digits):
    groups, data, how, moments = digits
    group, reader = one_reader(groups)
    (rows,) = sample_rows(groups.labelled.graph.source, find_taps(groups.labelled).only([reader.name]), data, how)
    patches = rows.reshape(len(rows), group.units, -1).astype(np.float64)
    contributions = np.einsum("ick,jck->ijc", patches, reader.W).reshape(-1, group.units)
    chosen = []
    for _ in range(group.units // 2):
        lost = contributions[:, chosen].sum(1, keepdims=True) + contributions
        harm = np.square(lost).sum(0)
        harm[chosen] = np.inf
        chosen.append(int(harm.argmin()))
    found = Thinet(centred=False).rank(group, Evidence(groups, moments=moments)).order[: len(chosen)]
    assert found.tolist() == chosen
    assert Thinet(centred=False).rank(group, Evidence(groups, moments=moments)).order.tolist() != list(
        range(group.units)
    )


def test_apoz_counts_zeros_where_the_group_is_read(digits):
    groups, _, _, moments = digits
    group, reader = one_reader(groups)
    ranking = make_criterion("apoz").rank(group, Evidence(groups, moments=moments))
    zeros = moments.activations[reader.data].zeros
    np.testing.assert_array_equal(ranking.order, np.argsort(1 - zeros, kind="stable"))


def test_swaps_never_raise_the_error_of_what_is_selected(digits):
    groups, _, _, moments = digits
    evidence = Evidence(groups, moments=moments)
    kept = np.array([g.units // 2 if g.pinned is None else g.units for g in groups.groups])
    plain, swapped = (select(groups, kept, make_criterion(word), evidence) for word in ("obs", "obs:swaps=30"))
    for group in groups.free:
        found = group_objectives(group, evidence, centred=True)
        rest = np.setdiff1d(np.arange(found[0].W.shape[1]), np.arange(group.units))
        errors = []
        for removed in (plain[group.name], swapped[group.name]):
            order = np.concatenate([np.array(removed), np.setdiff1d(np.arange(group.units), removed)])
            assert not np.isin(order, rest).any()
            errors.append(refit_harm(found, order, 1e-3)[len(removed) - 1])
        assert len(plain[group.name]) == len(swapped[group.name])
        assert errors[1] <= errors[0] * (1 + 1e-9)
    assert plain != swapped
