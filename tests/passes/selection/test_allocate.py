"""Widths meet the budget from below, by the method's rule, and quickly."""

from __future__ import annotations

import time

import numpy as np
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.errors import BudgetError, UsageError
from onnx_prune.passes.selection.allocate import allocate, select
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.criteria.weights.l1 import L1
from onnx_prune.passes.selection.criteria.weights.random import Random
from onnx_prune.passes.selection.frames import menus
from onnx_prune.passes.selection.methods import Global, Trim, Uniform, make_method
from onnx_prune.passes.selection.ranking import Evidence, Ranking, rank_groups

MEASURES = ("macs", "params", "size")


@pytest.fixture(scope="module")
def cost(groups_of):
    return cost_model(groups_of(models.resnet_cifar(56)))


@pytest.fixture(scope="module")
def rankings(cost):
    return rank_groups(L1(), Evidence(cost.groups))


@pytest.mark.parametrize("method", [Uniform(), Global()], ids=repr)
@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_budget_is_met_from_below_within_one_percent(cost, rankings, method, kind, share):
    kept = allocate(cost, rankings, Budget(**{kind: share}), method=method)
    measure = getattr(cost, kind)
    whole = measure(cost.units)
    assert (share - 0.01) * whole <= measure(kept) <= share * whole
    assert (kept >= 1).all()
    assert (kept <= cost.units).all()
    assert (kept[~cost.free] == cost.units[~cost.free]).all()
    assert np.array_equal(kept, allocate(cost, rankings, Budget(**{kind: share}), method=method))


def test_no_single_unit_can_be_given_back(cost, rankings):
    kept = allocate(cost, rankings, Budget(macs=0.5))
    limit = 0.5 * cost.macs(cost.units)
    assert all(cost.macs(kept + one) > limit for one in np.eye(len(kept), dtype=int)[cost.free])


def test_uniform_keeps_the_same_share_everywhere_up_to_one_unit(cost):
    kept, units = (a[cost.free] for a in (allocate(cost, {}, Budget(macs=0.5)), cost.units))
    assert ((kept - 1) / units).max() <= ((kept + 1) / units).min()
    assert np.ptp(kept / units) <= 1 / units.min()


def test_an_absolute_budget_is_the_share_it_amounts_to(cost):
    absolute = allocate(cost, {}, Budget(macs=cost.macs(cost.units) // 2))
    assert np.array_equal(absolute, allocate(cost, {}, Budget(macs=0.5)))


def test_a_budget_above_the_original_removes_nothing(cost):
    assert np.array_equal(allocate(cost, {}, Budget(macs="1T")), cost.units)
    assert np.array_equal(allocate(cost, {}, Budget(size=1.0)), cost.units)


def test_a_budget_of_channels_counts_the_units_that_may_go(cost):
    kept = allocate(cost, {}, Budget(channels=0.5))
    assert np.array_equal(kept[cost.free] * 2, cost.units[cost.free])


def test_global_takes_the_least_harmful_units_of_all_groups(cost):
    free = [g.name for g in cost.groups.free]
    steep = {g.name: Ranking(np.arange(g.units), np.cumsum(np.arange(1.0, g.units + 1) ** 8)) for g in cost.groups.free}
    flat = {g.name: Ranking(np.arange(g.units), np.arange(1.0, g.units + 1)) for g in cost.groups.free}
    kept = allocate(cost, {**flat, free[3]: steep[free[3]]}, Budget(macs=0.9), method=Global())
    counts = dict(zip((g.name for g in cost.groups.groups), kept.tolist(), strict=True))
    group = cost.groups[free[3]]
    small = (np.arange(1.0, group.units + 1) ** 8 < np.mean(np.arange(1.0, group.units + 1) ** 8)).sum()
    assert counts[free[3]] == group.units - small  # every unit below the mean goes before any unit at the mean


def test_global_does_not_depend_on_the_scale_of_a_groups_harm(cost, rankings):
    scaled = {name: Ranking(r.order, r.harm * (7 + i)) for i, (name, r) in enumerate(rankings.items())}
    before, after = (allocate(cost, r, Budget(macs=0.5), method=Global()) for r in (rankings, scaled))
    assert np.array_equal(before, after)


def test_global_protects_a_share_of_every_group(cost, rankings):
    name = cost.groups.free[5].name
    dead = {**rankings, name: Ranking(rankings[name].order, rankings[name].harm * np.linspace(0, 1e-9, 16))}
    dead[name].harm[-1] = 1.0  # all but one unit are harmless
    index = [g.name for g in cost.groups.groups].index(name)
    assert allocate(cost, dead, Budget(macs=0.8), method=Global())[index] == 2
    assert allocate(cost, dead, Budget(macs=0.8), method=Global(protect=0.5))[index] == 8
    assert allocate(cost, dead, Budget(macs=0.8), method=Global(protect=0))[index] == 1


@pytest.mark.parametrize("method", [Uniform(), Global()], ids=repr)
def test_aligned_counts_are_multiples_or_whole(cost, rankings, method):
    kept = allocate(cost, rankings, Budget(macs=0.4), method=method, align=8)
    cut = kept < cost.units
    assert cut.any()
    assert (kept[cut] % 8 == 0).all()
    assert cost.macs(kept) <= 0.4 * cost.macs(cost.units)


def test_groups_of_fewer_units_than_the_alignment_stay_whole(groups_of):
    cost = cost_model(groups_of(models.lenet5()))  # 20, 50 and 500 units
    kept = allocate(cost, {}, Budget(params=0.5), align=32)
    assert dict(zip((g.name for g in cost.groups.groups), kept.tolist(), strict=True))["conv1"] == 20


@pytest.mark.parametrize("method", [Uniform(), Global()], ids=repr)
def test_automatically_aligned_counts_are_multiples_of_their_groups_own(cost, rankings, method):
    kept = allocate(cost, rankings, Budget(macs=0.5), method=method, align="auto")
    cut = kept < cost.units
    multiple = menus(cost.units, "auto", coarse=isinstance(method, Uniform))[0]
    assert cut.any()
    assert (kept[cut] % multiple[cut] == 0).all()
    assert 0.49 < cost.macs(kept) / cost.macs(cost.units) <= 0.5


def test_a_budget_out_of_reach_of_the_aligned_widths_is_met_by_finer_ones(cost, rankings):
    least = cost.macs(np.where(cost.free, 1, cost.units)) / cost.macs(cost.units)
    kept = allocate(cost, rankings, Budget(macs=1.5 * least), align="auto")
    assert (kept[cost.free] % 4 != 0).any()
    assert cost.macs(kept) <= 1.5 * least * cost.macs(cost.units)


def test_shares_by_pattern_are_kept_as_they_are_said(cost):
    kept = allocate(cost, {}, Budget(channels={".*": 0.7}), align="auto")
    np.testing.assert_array_equal(kept[cost.free], np.floor(0.7 * cost.units[cost.free] + 1e-9))


def test_excluded_groups_stay_whole(cost):
    kept = allocate(cost, {}, Budget(macs=0.7), exclude=r"layer1\..*|conv1")
    stays = np.array([g.name == "conv1" or g.name.startswith("layer1.") for g in cost.groups.groups])
    assert (kept[stays] == cost.units[stays]).all()
    assert (kept[~stays & cost.free] < cost.units[~stays & cost.free]).all()


def test_shares_by_pattern_apply_to_whole_names_and_the_first_match_decides(cost):
    kept = allocate(cost, {}, Budget(channels={r"layer1\.0\.conv1": 0.5, r"layer1\..*": 0.7}))
    by_name = dict(zip((g.name for g in cost.groups.groups), kept.tolist(), strict=True))
    assert by_name["layer1.0.conv1"] == 8
    assert by_name["layer1.1.conv1"] == 11  # floor(0.7 * 16)
    assert by_name["layer2.0.conv1"] == 32
    least = allocate(cost, {}, Budget(channels={".*": 0.001}))
    assert (least[cost.free] == 1).all()


@pytest.mark.parametrize("give", [{"exclude": "layer"}, {"exclude": "("}, {"align": 0}, {"align": "most"}])
def test_options_that_match_nothing_or_make_no_sense_are_refused(cost, give):
    with pytest.raises(UsageError):
        allocate(cost, {}, Budget(), **give)
    with pytest.raises(UsageError, match="no group"):
        allocate(cost, {}, Budget(channels={"layer": 0.5}))
    with pytest.raises(UsageError, match="uniform"):
        make_method("best")


@pytest.mark.parametrize(
    ("budget", "options"),
    [
        ({"macs": 0.001}, {}),
        ({"macs": 0.3}, {"exclude": r"conv1|layer[12]\..*"}),
        ({"params": 0.005}, {"method": Global()}),
        ({"size": "10KB"}, {"align": 8}),
        ({"channels": 0.01}, {}),
    ],
)
def test_a_budget_out_of_reach_says_what_can_be_reached_and_that_succeeds(cost, rankings, budget, options):
    with pytest.raises(BudgetError, match=r"the budget cannot be met: [\d.]+ % of the .* can go") as caught:
        allocate(cost, rankings, Budget(**budget), **options)
    error = caught.value
    assert error.values["asked"] < error.values["possible"]
    (kind,) = budget
    advice = error.fix.split(f"ask for --{kind} ")[1].split(",")[0]
    kept = allocate(cost, rankings, Budget(**{kind: advice}), **options)
    assert (kept < cost.units).any()


def test_where_nothing_can_go_there_is_no_advice_to_ask_for_less(cost):
    for kind in (*MEASURES, "channels"):
        with pytest.raises(BudgetError, match=r": 0 % of the .* can go, 50 % were asked for") as caught:
            allocate(cost, {}, Budget(**{kind: 0.5}), exclude=".*")
        assert caught.value.fix == "exclude fewer groups"
        free = sum(group.pinned is None for group in cost.groups.groups)
        assert f"groups are pinned (onnx-prune inspect names them), {free} stay whole" in caught.value.where


def test_selected_units_are_the_first_of_the_ranking(cost):
    kept = allocate(cost, {}, Budget(macs=0.5))
    evidence = Evidence(cost.groups, seed=4)
    removed = select(cost.groups, kept, Random(), evidence)
    assert np.array_equal(cost.kept(removed), kept)
    for name, units in removed.items():
        order = Random().rank(cost.groups[name], evidence).order
        assert list(units) == sorted(order[: len(units)])


# --- trimming ---------------------------------------------------------------------------------------------------------


def scores(group, low, scale=1.0):
    """Harms of which `low` are far below the others."""
    return np.where(np.arange(group.units) < low, 0.1, 1.0) * scale


@pytest.fixture(scope="module")
def trimmed(cost):
    """Rankings by scores of which the first two of each free group stand out; the groups' means rise."""
    free = cost.groups.free
    return {g.name: Ranking.by_score(scores(g, 2, 1 + i)) for i, g in enumerate(free)}


def test_trimming_takes_what_is_below_the_mean_by_a_deviation_and_needs_no_budget(cost, trimmed):
    kept = allocate(cost, trimmed, None, method=Trim())
    assert (kept[cost.free] == cost.units[cost.free] - 2).all()
    rng = np.random.default_rng(0)
    drawn = {g.name: rng.random(g.units) for g in cost.groups.free}
    kept = allocate(cost, {name: Ranking.by_score(s) for name, s in drawn.items()}, None, method=Trim())
    expected = [(drawn[g.name] >= drawn[g.name].mean() - drawn[g.name].std()).sum() for g in cost.groups.free]
    assert kept[cost.free].tolist() == expected
    stricter = allocate(cost, {n: Ranking.by_score(s) for n, s in drawn.items()}, None, method=Trim(deviations=1.5))
    assert stricter.sum() > kept.sum()


def test_nothing_is_trimmed_where_all_are_alike(cost):
    alike = {g.name: Ranking.by_score(np.full(g.units, 0.1)) for g in cost.groups.free}
    assert np.array_equal(allocate(cost, alike, None, method=Trim()), cost.units)


def test_trimming_stops_at_the_budget_in_the_order_of_the_mean_harm(cost, trimmed):
    inner = {"method": Trim(), "exclude": r"conv1|.*conv2"}
    most, least = (allocate(cost, trimmed, budget, **inner) for budget in (None, Budget(macs=0.95)))
    assert (most <= least).all()
    assert 0.94 < cost.macs(least) / cost.macs(cost.units) <= 0.95
    lost = (cost.units - least)[most < cost.units]
    whole = np.flatnonzero(lost == 0)
    assert whole.size
    assert (lost[: whole[0] - 1] < 2).sum() <= 1  # groups of low mean harm first; a unit that fits may come back
    assert (lost[whole[0] + 1 :] == 0).all()


def test_a_budget_that_trimming_does_not_reach_is_no_error(cost, trimmed):
    most, least = (allocate(cost, trimmed, b, method=Trim()) for b in (None, Budget(macs=0.1)))
    assert np.array_equal(most, least)


def test_trimmed_counts_are_aligned_upwards(cost, trimmed):
    kept = allocate(cost, trimmed, None, method=Trim(), align=8)
    assert np.array_equal(kept, cost.units)  # two of 16 are no multiple of 8
    four = allocate(
        cost, {n: Ranking.by_score(scores(cost.groups[n], 5)) for n in trimmed}, None, method=Trim(), align=4
    )
    assert (four[cost.free] == cost.units[cost.free] - 4).any()
    assert (four[cost.free] % 4 == 0).all()


@pytest.mark.parametrize("method", [Uniform(), Global()], ids=repr)
def test_an_allocation_takes_well_below_a_tenth_of_a_second(cost, rankings, method):
    def seconds():
        start = time.process_time()
        allocate(cost, rankings, Budget(macs=0.5), method=method)
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.1
