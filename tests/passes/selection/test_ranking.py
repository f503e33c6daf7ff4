"""A criterion of the user's own may be any object that ranks; what is no ranking is refused, never cut by."""

from __future__ import annotations

import numpy as np
import onnx_prune
import pytest
from onnx_prune import UsageError, models
from onnx_prune.passes.selection.ranking import Ranking

UP = np.arange


class Own:
    """Not a dataclass; what it ranks by is given."""

    def __init__(self, order=UP, harm=UP, needs=None):
        self.order, self.harm = order, harm
        if needs is not None:
            self.needs = needs

    def rank(self, group, evidence):
        return Ranking(self.order(group.units), self.harm(group.units))


def pruned(criterion, **given):
    given = {"calibration": "none", "allocation": "error", **given}
    return onnx_prune.prune(models.digits_model(), measure=False, criterion=criterion, **given)


def test_any_object_that_ranks_is_a_criterion():
    found = pruned(Own(order=lambda n: list(range(n))))
    assert found.plan.criterion == "own"
    assert all(removed == tuple(range(len(removed))) for removed in found.plan.removed.values())


@pytest.mark.parametrize(
    "order",
    [
        lambda n: np.zeros(n, int),
        lambda n: UP(n - 1),
        lambda n: UP(n + 1),
        lambda n: UP(n) - 1,
        lambda n: UP(n) + 1,
        lambda n: UP(n) / 1,
        lambda n: UP(n) > 1,
        lambda n: UP(n)[:, None],
        lambda n: "abc",
        lambda n: None,
    ],
)
@pytest.mark.parametrize("allocation", ["uniform", "error"])
def test_an_order_that_does_not_name_each_unit_once_is_refused(order, allocation):
    with pytest.raises(UsageError, match=r"does not name each of the .* units once") as raised:
        pruned(Own(order), allocation=allocation)
    assert "group" in raised.value.where
    assert raised.value.fix


@pytest.mark.parametrize(
    "harm",
    [lambda n: np.full(n, np.nan), lambda n: UP(n - 1), lambda n: 1.0, lambda n: ["a"] * n, lambda n: UP(n) * 1j],
)
def test_a_harm_that_is_no_number_a_unit_is_refused(harm):
    with pytest.raises(UsageError, match="its harm is not"):
        pruned(Own(harm=harm))


@pytest.mark.parametrize("error", [KeyError("k"), IndexError(), AssertionError("mine"), RuntimeError("mine")])
def test_what_it_raises_is_said_with_the_group(error):
    def fails(n):
        raise error

    with pytest.raises(UsageError, match=f"the criterion fails: {type(error).__name__}") as raised:
        pruned(Own(fails))
    assert raised.value.__cause__ is error
    assert "Own.rank, group" in raised.value.where


def test_what_it_returns_is_a_ranking():
    class Other:
        def rank(self, group, evidence):
            return UP(group.units)

    with pytest.raises(UsageError, match="ndarray is no Ranking"):
        pruned(Other())


@pytest.mark.parametrize("needs", ["moments", {"moments"}, frozenset({"a lot"}), None.__class__])
def test_needs_are_a_frozen_set_of_known_words(needs):
    with pytest.raises(UsageError, match="not a frozen set of known words"):
        pruned(Own(needs=needs))


def test_a_refined_choice_is_checked_as_well():
    class Refines(Own):
        def refine(self, group, evidence, removed):
            return removed[:-1]

    with pytest.raises(UsageError, match="what it refines is not"):
        pruned(Refines())
