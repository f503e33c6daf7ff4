"""ThiNet's selections on the Gram matrix, against the papers' loops on the rows of samples."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.algebra.greedy import channel_scalars, thinet_greedy, thinet_omp
from onnx_prune.passes.algebra.removal import drop_harm, rescale_harm


def sampled_rows(C=24, rows=300, seed=0):
    """Correlated, skewed contributions x (rows, C), as after a ReLU."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((rows, C // 2))
    x = np.maximum(hidden @ rng.standard_normal((C // 2, C)) + rng.standard_normal((rows, C)), 0)
    return x * rng.uniform(0.3, 1, C) * rng.choice([-1, 1], C)


def literal_thinet(x):
    """Algorithm 1 of ThiNet (ICCV 2017): the set T of removed channels grows by the one that adds least."""
    T, values = [], []
    total = np.zeros(len(x))
    while len(T) < x.shape[1]:
        value, best = min((np.sum((total + x[:, c]) ** 2), c) for c in range(x.shape[1]) if c not in T)
        T.append(best)
        values.append(value)
        total = total + x[:, best]
    return T, values


def literal_omp(x, keep):
    """The greedy loop of ThiNet (TPAMI 2018): least squares on the rows after each choice."""
    y = x.sum(1)
    S, residual, w = [], y, np.zeros(0)
    while len(S) < keep:
        scores = (x.T @ residual) ** 2 / np.sum(x**2, 0)
        scores[S] = -1
        S.append(int(scores.argmax()))
        w = np.linalg.lstsq(x[:, S], y, rcond=None)[0]
        residual = y - x[:, S] @ w
    return S, w, np.sum(residual**2)


@pytest.mark.parametrize("seed", range(4))
def test_thinet_removes_what_the_paper_removes_from_the_same_rows(seed):
    x = sampled_rows(seed=seed)
    order, values = literal_thinet(x)
    removal = thinet_greedy(x.T @ x)
    assert removal.order.tolist() == order
    np.testing.assert_allclose(removal.harm, values, rtol=1e-9, atol=1e-9 * max(values))


@pytest.mark.parametrize("seed", range(4))
def test_omp_keeps_what_the_paper_keeps_from_the_same_rows_with_the_same_scalars(seed):
    x = sampled_rows(seed=seed)
    G = x.T @ x
    removal = thinet_omp(G)
    for keep in (1, 7, 12, 24):
        S, w, error = literal_omp(x, keep)
        assert removal.order[::-1][:keep].tolist() == S
        np.testing.assert_allclose(channel_scalars(G, np.array(S), 1e-13), w, rtol=1e-8)
        if keep < 24:
            assert removal.harm[24 - keep - 1] == pytest.approx(error, rel=1e-7)


def test_the_two_algorithms_differ_so_that_mixing_them_up_would_be_seen():
    x = sampled_rows()
    kept = thinet_omp(x.T @ x).order[12:]
    assert set(kept) != set(literal_thinet(x)[0][12:])


def test_another_gram_matrix_would_be_seen():
    x = sampled_rows()
    assert thinet_greedy(np.abs(x.T @ x)).order.tolist() != literal_thinet(x)[0]


@pytest.mark.parametrize("select", [thinet_greedy, thinet_omp])
def test_every_channel_goes_once_and_the_last_takes_the_whole_output(select):
    x = sampled_rows()
    G = x.T @ x
    order, harm = select(G)
    assert sorted(order) == list(range(24))
    assert harm[-1] == pytest.approx(G.sum())
    assert np.abs(harm).max() == harm.max()


def test_dead_channels_go_first_and_duplicates_before_what_they_repeat():
    x = sampled_rows(12)
    x = np.hstack([x, np.zeros((300, 2)), x[:, :2]])  # 12 and 13 are dead, 14 and 15 repeat 0 and 1
    order, harm = thinet_omp(x.T @ x)
    assert set(order[:2]) == {12, 13}
    assert {frozenset(int(c) % 14 for c in order[2:4])} == {frozenset((0, 1))}
    assert harm[3] < 1e-8 * harm[-1] < harm[4]
    assert set(thinet_greedy(x.T @ x).order[:2]) == {12, 13}


@pytest.mark.parametrize("select", [thinet_greedy, thinet_omp])
@pytest.mark.parametrize("G", [np.zeros((3, 3)), np.ones((1, 1)), np.ones((4, 4)), np.zeros((0, 0))])
def test_matrices_with_nothing_in_them_have_an_order_too(select, G):
    order, harm = select(G)
    assert sorted(order) == list(range(len(G)))
    assert np.isfinite(harm).all()


def test_scalars_stay_one_when_everything_is_kept_or_nothing_is_known():
    x = sampled_rows()
    np.testing.assert_allclose(channel_scalars(x.T @ x, np.arange(24), 1e-3), 1, rtol=1e-12)
    np.testing.assert_array_equal(channel_scalars(np.zeros((4, 4)), np.array([0, 2]), 1e-3), 1)


def test_a_heavy_ridge_pulls_the_scalars_to_one_not_to_zero():
    x = sampled_rows()
    kept = np.arange(12)
    free, held = (channel_scalars(x.T @ x, kept, ridge) for ridge in (1e-9, 1e9))
    assert np.abs(free - 1).max() > 0.1
    np.testing.assert_allclose(held, 1, atol=1e-6)


def test_wild_scalars_are_refused():
    x = sampled_rows(2)
    x[:, 1] = 50 * x[:, 0]
    np.testing.assert_array_equal(channel_scalars(x.T @ x, np.array([0]), 1e-9), 1)


def test_error_curves_of_any_order_are_those_of_least_squares_on_the_rows():
    x = sampled_rows(10)
    order = np.random.default_rng(3).permutation(10)
    y, G = x.sum(1), x.T @ x
    for m in range(1, 11):
        gone, kept = order[:m], order[m:]
        assert drop_harm(G, order)[m - 1] == pytest.approx(np.sum(x[:, gone].sum(1) ** 2), rel=1e-10)
        w = np.linalg.lstsq(x[:, kept], y, rcond=None)[0]
        assert rescale_harm(G, order, 1e-13)[m - 1] == pytest.approx(np.sum((y - x[:, kept] @ w) ** 2), rel=1e-8)
