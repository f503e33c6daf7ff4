"""Allocation by error: convex hulls, and the least sum of harms under a budget."""

import itertools

import numpy as np
import pytest
from onnx_prune.models import lenet5
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.selection.allocate import allocate
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.methods import Error
from onnx_prune.passes.selection.ranking import Ranking
from onnx_prune.passes.selection.tradeoff import convex_slopes, savings


def test_slopes_of_a_convex_curve_are_its_steps():
    np.testing.assert_allclose(convex_slopes(np.array([1.0, 3.0, 6.0, 10.0])), [1, 2, 3, 4])


def test_slopes_never_fall_and_the_hull_lies_below_the_curve():
    rng = np.random.default_rng(0)
    for _ in range(50):
        harm = np.cumsum(rng.random(12) ** 4)
        slopes = convex_slopes(harm)
        assert (np.diff(slopes) >= -1e-12).all()
        assert (np.cumsum(slopes) <= harm + 1e-12).all()
        assert np.cumsum(slopes)[-1] == pytest.approx(harm[-1])


@pytest.fixture(scope="module")
def lenet(groups_of):
    groups = groups_of(lenet5())
    return groups, cost_model(groups)


def rankings_of(groups, power):
    return {
        g.name: Ranking(np.arange(g.units), (np.arange(1, g.units + 1) / g.units) ** power * (1 + i))
        for i, g in enumerate(groups.free)
    }


def test_savings_are_what_one_unit_costs(lenet):
    groups, cost = lenet
    saved = savings(cost, "params")
    for number, group in enumerate(groups.groups):
        less = cost.units.copy()
        less[number] -= 1
        assert saved[number] == (cost.params(cost.units) - cost.params(less) if group.pinned is None else 0)
    assert (savings(cost, "channels") == cost.free).all()


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_no_other_widths_under_the_budget_have_less_harm(lenet, share):
    groups, cost = lenet
    rankings = rankings_of(groups, 2.0)
    kept = allocate(cost, rankings, Budget(params=share), method=Error(costs=savings(cost, "params")))
    limit = share * cost.params(cost.units)
    free = np.flatnonzero(cost.free)

    def harm(widths):
        gone = cost.units - widths
        return sum(rankings[groups.groups[i].name].harm[gone[i] - 1] for i in free if gone[i])

    steps = [sorted({max(int(cost.units[i] * s), 1) for s in np.linspace(0.05, 1, 15)}) for i in free]
    best = np.inf
    for widths in itertools.product(*steps):
        full = cost.units.copy()
        full[free] = widths
        if cost.params(full) <= limit:
            best = min(best, harm(full))
    assert cost.params(kept) <= limit
    assert harm(kept) <= 1.1 * best  # savings are those of the whole network: products of widths make it a bound only
    assert harm(allocate(cost, rankings, Budget(params=share))) > harm(kept)
