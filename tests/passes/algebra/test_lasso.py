"""The LASSO path, against coordinate descent and against the conditions that define a solution."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.algebra import lasso
from onnx_prune.passes.algebra.lasso import lasso_path, lasso_select

C = 20


@pytest.fixture(params=[0, 3, 5])
def G(request, monkeypatch):
    """A matrix that needs no ridge, and none that would blur the comparison."""
    monkeypatch.setattr(lasso, "_RIDGE", 1e-13)
    rng = np.random.default_rng(request.param)
    factors = rng.standard_normal((300, 4)) @ rng.standard_normal((4, C))
    x = factors + rng.uniform(0.3, 1, C) * rng.standard_normal((300, C))
    return x.T @ x / 300


def test_the_data_has_coefficients_that_begin_below_zero_and_some_that_vanish_again(G):
    solutions = np.sign([dense(lasso_select(G, keep)) for keep in range(C + 1)])
    assert (solutions < 0).any()
    assert (np.diff(np.abs(solutions), axis=0) < 0).any()


def coordinate_descent(G, penalty):
    """Plain and slow: one coefficient after the other until none moves."""
    q, b = G.sum(1), np.zeros(len(G))
    for _ in range(100_000):
        before = b.copy()
        for c in range(len(G)):
            rho = q[c] - G[c] @ b + G[c, c] * b[c]
            b[c] = np.sign(rho) * max(abs(rho) - penalty, 0) / G[c, c]
        if np.abs(b - before).max() < 1e-12:
            return b
    raise AssertionError("did not converge")


def violation(G, b, penalty):
    """How far b is from the subgradient conditions: q - G b = penalty * sign(b), within +-penalty where b is 0."""
    gradient = G.sum(1) - G @ b
    inside = np.maximum(np.abs(gradient) - penalty, 0)
    return np.where(b != 0, np.abs(gradient - penalty * np.sign(b)), inside).max() / np.abs(G.sum(1)).max()


def dense(selected, size=C):
    b = np.zeros(size)
    b[selected.kept] = selected.coefficients
    return b


@pytest.mark.parametrize("keep", [0, 1, 5, 10, 15, 19, 20])
def test_the_selection_keeps_exactly_so_many_and_solves_the_problem(G, keep):
    selected = lasso_select(G, keep)
    assert len(selected.kept) == keep
    assert violation(G, dense(selected), selected.penalty) < 1e-10


def test_coordinate_descent_finds_the_same(G):
    for keep in (3, 10, 17):
        selected = lasso_select(G, keep)
        np.testing.assert_allclose(dense(selected), coordinate_descent(G, selected.penalty), atol=1e-9)


def test_the_conditions_see_a_wrong_coefficient(G):
    selected = lasso_select(G, 10)
    b = dense(selected)
    b[selected.kept[0]] *= 1.01
    assert violation(G, b, selected.penalty) > 1e-5


def test_keeping_everything_has_no_penalty_and_leaves_the_weights(G):
    selected = lasso_select(G, C)
    np.testing.assert_allclose(selected.coefficients * (selected.penalty == 0), 1, rtol=1e-9)


def test_the_order_is_that_in_which_a_growing_penalty_silences_for_good(G):
    order, harm = lasso_path(G)
    top = np.abs(G.sum(1)).max()
    last = np.zeros(C)
    for penalty in top * np.linspace(1e-3, 1, 150):
        last[coordinate_descent(G, penalty) != 0] = penalty
    distinct = np.abs(np.diff(last[order])) > 0
    assert (np.diff(last[order])[distinct] > 0).all()
    assert distinct.sum() > C // 2
    assert (np.diff(harm) > -1e-12 * harm[-1]).all()
    assert harm[-1] == pytest.approx(G.sum())


def test_dead_channels_go_first_and_one_of_a_pair_can_stand_for_both():
    x = np.abs(np.random.default_rng(0).standard_normal((200, 8))) + 0.1
    x = np.hstack([x, np.zeros((200, 2)), x[:, :3]])
    G = x.T @ x / 200
    order, harm = lasso_path(G)
    assert sorted(order) == list(range(13))
    assert set(order[:2]) == {8, 9}
    for keep in range(1, 12):
        selected = lasso_select(G, keep)
        assert len(selected.kept) == keep
        assert violation(G, dense(selected, 13), selected.penalty) < 2e-6
    assert np.isfinite(harm).all()


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.ones((1, 1)), np.ones((4, 4)), np.zeros((0, 0))])
def test_matrices_with_nothing_in_them_have_an_order_too(matrix):
    order, harm = lasso_path(matrix)
    assert sorted(order) == list(range(len(matrix)))
    assert np.isfinite(harm).all()


def test_an_impossible_count_is_refused(G):
    with pytest.raises(ValueError, match="cannot keep 21 of 20"):
        lasso_select(G, 21)
