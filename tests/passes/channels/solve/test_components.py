"""Ties solved: components against a union by hand, and the first reason to stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.channels.solve.components import components, pin_reasons


def joined_by_hand(count, ties):
    """The smallest label that each is tied to, by going round until nothing changes."""
    least = list(range(count))
    for _ in range(count):
        for first, second in ties:
            for a, b in zip(first, second, strict=True):
                least[a] = least[b] = min(least[a], least[b])
    return least


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_of_one_component_where_ties_lead_from_one_to_the_other(seed):
    rng = np.random.default_rng(seed)
    ties = [tuple(rng.integers(0, 30, (2, 4))) for _ in range(4)]
    component, expected = components(30, ties), joined_by_hand(30, ties)
    same = np.equal.outer(component, component)
    assert (same == np.equal.outer(expected, expected)).all()
    assert set(component.tolist()) == set(range(component.max() + 1))


def test_without_ties_each_label_is_its_own():
    assert components(4, []).tolist() == [0, 1, 2, 3]


def test_the_first_reason_is_told():
    component = np.array([0, 0, 1, 2])
    pins = [(np.array([1]), "an output"), (np.array([0, 3]), "a sum"), (np.array([], np.int64), "nothing")]
    assert pin_reasons(component, pins) == {0: "an output", 2: "a sum"}
