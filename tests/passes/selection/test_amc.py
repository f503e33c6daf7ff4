"""What AMC's agent sees, and the wall that keeps it within the budget."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.selection.allocate import measure_of
from onnx_prune.passes.selection.amc import STATE, make_walk
from onnx_prune.passes.selection.criteria import make_criterion
from onnx_prune.passes.selection.frames import frame_of
from onnx_prune.passes.selection.methods import Amc
from onnx_prune.passes.selection.ranking import Evidence, rank_groups


@pytest.fixture(scope="module")
def cost(groups_of):
    return cost_model(groups_of(models.resnet_cifar(20)))


def walk_of(cost, kind="macs", share=0.5, align=1):
    frame = frame_of(cost, 0.2, np.full(len(cost.units), align), None)
    measure = measure_of(cost, frame, kind, None)
    return make_walk(cost, frame, measure, share * measure(frame.units))


def walked(walk, shares):
    kept = walk.frame.units.copy()
    for step, (group, share) in enumerate(zip(walk.turns.tolist(), shares, strict=True)):
        kept[group] = walk.width(step, kept, share)
    return kept


@pytest.mark.parametrize(("kind", "align"), [("macs", 1), ("params", 1), ("channels", 1), ("macs", 4)])
def test_whatever_the_agent_says_the_budget_holds(cost, kind, align):
    walk, rng = walk_of(cost, kind, align=align), np.random.default_rng(0)
    for shares in [np.ones(len(walk.turns)), np.zeros(len(walk.turns)), *rng.random((20, len(walk.turns)))]:
        kept = walked(walk, shares)
        assert walk.measure(kept) <= walk.limit
        assert (kept >= walk.frame.fewest).all()
        assert (kept[walk.turns] % align == 0).all() or (kept == cost.units).any()


def test_the_wall_lets_through_all_that_the_budget_lets(cost):
    walk = walk_of(cost)
    kept, shares = walk.frame.units.copy(), np.linspace(1, 0.6, len(walk.turns))
    for step, (group, share) in enumerate(zip(walk.turns.tolist(), shares, strict=True)):
        after = kept.copy()
        after[walk.turns[step:]] = walk.frame.least[walk.turns[step:]]
        allowed = []
        for width in range(int(walk.frame.least[group]), int(cost.units[group]) + 1):
            after[group] = width
            if cost.macs(after) <= walk.limit and width <= max(share * cost.units[group], walk.frame.least[group]):
                allowed.append(width)
        kept[group] = walk.width(step, kept, float(share))
        assert kept[group] == max(allowed)
    assert cost.macs(kept) > 0.97 * walk.limit


def test_without_a_wall_the_budget_would_not_hold(cost):
    walk = walk_of(cost)
    assert cost.macs(np.maximum((0.9 * cost.units).astype(int), walk.frame.least)) > walk.limit


def macs_by_hand(widths):
    """ResNet-20 of these inner widths, 3x3 convolutions but for the head: name of what a layer reads -> its MACs."""
    sizes, streams = (32, 16, 8), (16, 32, 64)
    found, before = {"image": 32 * 32 * 9 * 3 * 16}, 16
    for stage, (size, width) in enumerate(zip(sizes, streams, strict=True), 1):
        for block in range(3):
            name = f"layer{stage}.{block}.conv1"
            found[f"{name} in"] = size**2 * 9 * before * widths.get(name, width)
            found[name] = size**2 * 9 * widths.get(name, width) * width
            before = width
    return {**found, "head": 64 * 10}


def test_the_state_is_that_of_the_paper(cost):
    """FLOPs[t], reduced, rest and the last action, from the layers' MACs written out."""
    walk = walk_of(cost)
    names = [cost.groups.groups[number].name for number in walk.turns]
    kept, step = walk.frame.units.copy(), names.index("layer2.1.conv1")
    before = [number for number in range(step) if ".conv1" in names[number]]
    for at in before:
        kept[walk.turns[at]] -= 5
    state = walk.state(step, kept, 0.5)
    assert state.shape == (STATE,)
    assert ((state >= 0) & (state <= 1)).all()
    outputs, inputs, size, stride, kernel = walk.layers[step][[1, 2, 3, 5, 6]]
    assert (outputs, inputs, size, stride, kernel) == (32, 32, 16, 1, 3)
    spent = macs_by_hand({})
    now = macs_by_hand({names[at]: int(kept[walk.turns[at]]) for at in before})
    whole = sum(spent.values())
    assert whole == cost.macs(cost.units)
    # open by then: inner layers, and the last stream's own 32 of 64 channels; the others are those of the stages before
    assert len([name for name in names[step + 1 :] if ".conv1" not in name]) == 1
    rest = sum(spent[name] for name in names[step + 1 :] if ".conv1" in name)
    rest += (spent["head"] + spent["layer3.1.conv1 in"] + spent["layer3.2.conv1 in"]) / 2
    expected = [spent["layer2.1.conv1"] / whole, 1 - sum(now.values()) / whole, rest / whole, 0.5]
    np.testing.assert_allclose(state[7:], expected, rtol=1e-12)
    assert 0 < state[8] < state[9]


def test_numbers_of_the_layers_run_from_0_to_1_over_the_network(cost):
    """(t, n, c, h, w, stride, k) less their least, over their range; of a kind that does not vary there is nothing."""
    walk = walk_of(cost)
    seen = np.array([walk.state(step, walk.frame.units, 1.0)[:7] for step in range(len(walk.turns))])
    least, most = walk.layers.min(0), walk.layers.max(0)
    assert least[1] > 1
    assert least[3] > 1
    wanted = (walk.layers - least) / np.where(most > least, most - least, 1)
    np.testing.assert_allclose(seen, wanted, atol=1e-12)
    assert (seen.max(0)[[0, 1, 2, 3, 4]] == 1).all()
    np.testing.assert_allclose(seen[:, 0], np.linspace(0, 1, len(walk.turns)))


def test_decisions_follow_the_order_in_which_layers_read(cost):
    walk = walk_of(cost)
    assert (walk.layers[:, 0] == np.arange(len(walk.turns))).all()
    sizes = walk.layers[:, 3]
    blocks = [cost.groups.groups[number].name for number in walk.turns if number is not None]
    inner = [name for name in blocks if name.endswith("conv1") and "." in name]
    assert inner == sorted(inner)
    assert sizes.max() == 32


def test_rewards_are_errors_and_may_count_the_macs():
    assert Amc().paid(0.25, 1e6) == -0.25
    assert Amc(reward="error-macs").paid(0.25, 1e6) == pytest.approx(-0.25 * np.log(1e6))


def test_l1_of_readers_is_the_norm_of_the_kernels_that_read_a_channel(groups_of):
    groups = groups_of(models.lenet5())
    group = next(g for g in groups.free if g.consumed and len(g.consumed) == 1)
    evidence = Evidence(groups)
    ranking = rank_groups(make_criterion("l1:of=readers"), evidence)[group.name]
    (key,) = group.consumed
    weight = np.moveaxis(evidence.weight(key), key.axis, 0)
    norms = [np.abs(weight[indices]).sum() for indices in group.slices[key]]
    assert np.array_equal(ranking.order, np.argsort(norms, kind="stable"))
    assert not np.array_equal(ranking.order, rank_groups(make_criterion("l1"), evidence)[group.name].order)
