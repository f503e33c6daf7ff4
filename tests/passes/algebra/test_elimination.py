"""Optimal brain surgeon by channels and its local search, against least squares on the rows of patches."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from onnx_prune.passes.algebra.elimination import joint_obs, obs_elimination
from onnx_prune.passes.algebra.gram import channel_gram, covariance
from onnx_prune.passes.algebra.least_squares import refit_full
from onnx_prune.passes.algebra.removal import Objective, columns, refit_harm, relative, rescale_harm
from onnx_prune.passes.algebra.swaps import swap_refine

SHAPES = [(5, 7, 1), (1, 6, 3), (20, 5, 2), (3, 12, 4)]


def consumer(n, C, k, seed=0, rows=400):
    """W, and second moment and mean of correlated, skewed patches."""
    rng = np.random.default_rng(seed)
    m = C * k
    hidden = rng.standard_normal((rows, m // 2 + 1))
    U = np.maximum(hidden @ rng.standard_normal((m // 2 + 1, m)) + rng.standard_normal((rows, m)), 0)
    return rng.standard_normal((n, C, k)), U.T @ U / rows, U.mean(0)


def refit_error(W, S, removed, ridge):
    """Least of tr((W - W') H (W - W')^T) without the removed channels, H = S + ridge, from the normal equations."""
    n, C, k = W.shape
    H = S + ridge * np.trace(S) / len(S) * np.eye(len(S))
    kept = columns(np.setdiff1d(np.arange(C), removed), k)
    flat = W.reshape(n, -1)
    difference = flat.copy()
    if len(kept):
        difference[:, kept] -= np.linalg.solve(H[np.ix_(kept, kept)], (flat @ H)[:, kept].T).T
    return np.sum((difference @ H) * difference)


def exhaustive_greedy(consumers, ridge, candidates):
    """The order that trying every channel and refitting from scratch gives, and its errors."""
    order, errors = [], []
    while len(order) < len(candidates):
        trials = [
            (sum(weight * refit_error(W, S, [*order, c], ridge) for W, S, weight in consumers), c)
            for c in candidates
            if c not in order
        ]
        error, best = min(trials)
        order.append(best)
        errors.append(error)
    return order, errors


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ridge", [1e-8, 1e-2])
def test_each_removal_is_the_best_that_refitting_from_scratch_finds_and_the_harm_is_its_error(shape, ridge):
    W, A, mu = consumer(*shape)
    S = covariance(A, mu)
    order, errors = exhaustive_greedy([Objective(W, S)], ridge, range(shape[1]))
    removal = obs_elimination(W, S, ridge)
    assert removal.order.tolist() == order
    np.testing.assert_allclose(removal.harm, errors, rtol=1e-9)


def test_another_ridge_would_be_seen():
    W, A, _ = consumer(5, 7, 2)
    assert not np.allclose(obs_elimination(W, A, 1e-2).harm, obs_elimination(W, A, 1.1e-2).harm, rtol=1e-9)


def test_restarts_lose_nothing_over_a_long_elimination():
    W, A, mu = consumer(9, 90, 1)
    S = covariance(A, mu)
    order, harm = obs_elimination(W, S, 1e-6)
    assert sorted(order) == list(range(90))
    for m in (1, 20, 45, 70, 89):
        assert harm[m - 1] == pytest.approx(refit_error(W, S, order[:m], 1e-6), rel=1e-9)


def test_several_consumers_are_weighed_by_their_relative_error():
    consumers = [relative(*consumer(4, 6, k, seed)[:2]) for seed, k in enumerate((1, 3, 2))]
    consumers[0] = relative(30 * consumers[0].W, consumers[0].S)
    consumers.append(relative(np.zeros((2, 6, 1)), np.eye(6)))
    assert consumers[-1].weight == 0
    order, errors = exhaustive_greedy(consumers, 1e-3, range(6))
    removal = joint_obs(consumers, 1e-3)
    assert removal.order.tolist() == order
    np.testing.assert_allclose(removal.harm, errors, rtol=1e-9)
    assert removal.harm[-1] == pytest.approx(3, rel=0.05)  # each of the three has lost all of its output
    assert order != joint_obs([c._replace(weight=1.0) for c in consumers], 1e-3).order.tolist()


def test_only_candidates_go_and_the_others_are_refitted():
    W, A, _ = consumer(4, 20, 2)
    candidates = [3, 4, 11, 12, 13, 17, 18]
    order, errors = exhaustive_greedy([Objective(W, A)], 1e-3, candidates)
    removal = joint_obs([Objective(W, A)], 1e-3, np.array(candidates))
    assert removal.order.tolist() == order
    np.testing.assert_allclose(removal.harm, errors, rtol=1e-9)
    np.testing.assert_allclose(refit_harm([Objective(W, A)], removal.order, 1e-3), errors, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_cholesky_factor_gives_the_error_curve_of_any_order(shape):
    W, A, _ = consumer(*shape)
    order = np.random.default_rng(1).permutation(shape[1])
    curve = refit_harm([Objective(W, A, 2.0)], order, 1e-5)
    direct = [2 * refit_error(W, A, order[: m + 1], 1e-5) for m in range(shape[1])]
    np.testing.assert_allclose(curve, direct, rtol=1e-9)
    assert not np.allclose(refit_harm([Objective(W, A, 2.0)], order[::-1], 1e-5)[:-1], direct[:-1], rtol=1e-3)


def test_on_the_gram_matrix_it_eliminates_with_scalars():
    W, A, _ = consumer(5, 8, 3)
    G = channel_gram(W, A)
    removal = obs_elimination(np.ones((1, 8, 1)), G, 1e-10)
    np.testing.assert_allclose(removal.harm, rescale_harm(G, removal.order), rtol=1e-7)


def test_more_filters_than_columns_change_nothing_but_the_time():
    W, A, _ = consumer(30, 6, 2)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    rotated = np.einsum("ij,jck->ick", rotation, W)
    np.testing.assert_allclose(obs_elimination(W, A).harm, obs_elimination(rotated, A).harm, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3])
def test_dead_and_duplicated_channels_go_first_for_nothing(k):
    W, A, mu = consumer(4, 10, k)
    pick = columns(np.array([*range(10), 0, 1]), k)
    S = np.zeros((13 * k, 13 * k))  # 10 and 11 repeat 0 and 1, 12 is dead
    S[: 12 * k, : 12 * k] = covariance(A, mu)[np.ix_(pick, pick)]
    W = np.concatenate([W, np.random.default_rng(5).standard_normal((4, 3, k))], 1)
    order, harm = obs_elimination(W, S, 1e-9)
    assert sorted(order) == list(range(13))
    assert {int(c) % 10 for c in order[:3] if c != 12} == {0, 1}
    assert 12 in order[:3]
    assert harm[2] < 1e-7 * harm[-1] < harm[3]
    assert (np.diff(harm) >= 0).all()


@pytest.mark.parametrize("S", [np.zeros((4, 4)), np.eye(4), np.ones((4, 4))])
def test_matrices_with_nothing_in_them_have_an_order_too(S):
    removal = obs_elimination(np.zeros((2, 2, 2)), S)
    assert removal.order.tolist() == [0, 1]
    assert removal.harm.tolist() == [0, 0]
    assert joint_obs([relative(np.zeros((2, 2, 2)), S)]).order.tolist() == [0, 1]


def test_moments_that_are_not_numbers_are_refused():
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        obs_elimination(np.ones((1, 2, 1)), np.full((2, 2), np.nan))


def test_no_criterion_without_refit_beats_it_on_this_data():
    W, A, _ = consumer(8, 16, 3)
    order, harm = obs_elimination(W, A)
    worst_first = refit_harm([Objective(W, A)], order[::-1], 1e-3)
    assert (harm[:-1] < worst_first[:-1]).all()


@pytest.mark.parametrize("seed", range(3))
def test_swaps_never_worsen_the_error_and_end_where_no_such_swap_helps(seed):
    parts = [relative(*consumer(3, 10, k, seed + 10 * k)[:2]) for k in (1, 2)]
    start = np.random.default_rng(seed).permutation(10)[:3]

    def error(removed):
        return sum(weight * refit_error(W, S, removed, 1e-3) for W, S, weight in parts)

    refined = swap_refine(parts, start)
    errors = [error(swap_refine(parts, start, rounds=rounds)) for rounds in range(5)]
    assert len(refined) == 3
    assert errors[0] == error(start)
    assert (np.diff(errors) <= 0).all()
    assert error(refined) < errors[0]
    first = min(set(range(10)) - set(refined), key=lambda c: error([*refined, c]))
    assert min(error([c for c in [*refined, first] if c != back]) for back in refined) > error(refined) * (1 - 1e-8)


def test_swaps_come_close_to_the_best_of_all_subsets():
    W, A, _ = consumer(3, 8, 2)
    best = min(refit_error(W, A, T, 1e-3) for T in combinations(range(8), 4))
    greedy = obs_elimination(W, A).order[:4]
    refined = swap_refine([Objective(W, A)], greedy)
    assert best <= refit_error(W, A, refined, 1e-3) <= refit_error(W, A, greedy, 1e-3) * (1 + 1e-12)


def test_only_candidates_are_swapped():
    W, A, _ = consumer(4, 12, 2)
    candidates = np.array([1, 2, 5, 8, 9, 11])
    start = np.array([1, 8, 11])
    refined = swap_refine([Objective(W, A)], start, candidates=candidates)
    assert set(refined) <= set(candidates)
    assert len(refined) == 3
    errors = [refit_error(W, A, T, 1e-3) for T in (refined, start, swap_refine([Objective(W, A)], start))]
    assert errors[2] < errors[0] < errors[1]  # more freedom would have given more


@pytest.mark.parametrize("removed", [[], range(5)])
def test_there_is_nothing_to_swap_when_nothing_or_everything_goes(removed):
    W, A, _ = consumer(3, 5, 2)
    assert swap_refine([Objective(W, A)], np.array(removed, int)).tolist() == list(removed)


def test_the_refit_has_the_error_that_the_elimination_told():
    W, A, mu = consumer(6, 9, 3)
    S = covariance(A, mu)
    order, harm = obs_elimination(W, S, 1e-4)
    kept = np.sort(order[4:])
    difference = W.copy()
    difference[:, kept] -= refit_full(W, np.zeros(6), A, mu, kept, 1e-4).weight
    flat = difference.reshape(6, -1)
    H = S + 1e-4 * np.trace(S) / len(S) * np.eye(len(S))
    assert np.sum((flat @ H) * flat) == pytest.approx(harm[3], rel=1e-9)
