"""The quadratic of collaborative channel pruning: greedy order, exchanges, and how near they come to the best."""

import itertools

import numpy as np
import pytest
from onnx_prune.passes.algebra.binary_quadratic import exchange, greedy_removal, removal_loss


def quadratic(seed, C=9, samples=12):
    """u and S of random per-sample gradients that are correlated, as those of channels are."""
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((samples, C)) @ rng.standard_normal((C, C)) + 0.1
    return U.mean(0), U.T @ U / samples


def best(u, S, count):
    return min(removal_loss(u, S, np.array(T)) for T in itertools.combinations(range(len(u)), count))


@pytest.mark.parametrize("seed", range(3))
def test_the_greedy_order_is_the_literal_one(seed):
    u, S = quadratic(seed)
    removal, gone = greedy_removal(u, S), []
    for step in range(len(u)):
        losses = [removal_loss(u, S, np.array([*gone, c])) if c not in gone else np.inf for c in range(len(u))]
        gone.append(int(np.argmin(losses)))
        assert removal.harm[step] == pytest.approx(min(losses), rel=1e-12, abs=1e-12)
    assert removal.order.tolist() == gone


def test_the_quadratic_is_the_paper_s_up_to_a_constant():
    u, S = quadratic(0)
    shat = S / 2 + np.diag(u - S.sum(1))
    rng = np.random.default_rng(1)
    differences = []
    for _ in range(5):
        removed = rng.permutation(len(u))[:4]
        beta = np.ones(len(u))
        beta[removed] = 0
        differences.append(removal_loss(u, S, removed) - beta @ shat @ beta)
    np.testing.assert_allclose(differences, differences[0], rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_after_the_exchanges_no_single_one_helps(seed):
    u, S = quadratic(seed)
    for count in range(1, len(u)):
        greedy = greedy_removal(u, S).order[:count]
        found = exchange(u, S, greedy)
        reached = removal_loss(u, S, found)
        assert len(set(found.tolist())) == count
        assert reached <= removal_loss(u, S, greedy) + 1e-12
        for a, b in itertools.product(found, np.setdiff1d(np.arange(len(u)), found)):
            other = np.append(found[found != a], b)
            assert removal_loss(u, S, other) >= reached - 1e-9


def test_greedy_and_exchanges_come_within_a_few_percent_of_the_best_set():
    gaps, greedy_gaps, hits = [], [], 0
    for seed in range(20):
        u, S = quadratic(seed)
        for count in (2, 4, 6):
            order = greedy_removal(u, S).order[:count]
            least, scale = best(u, S, count), np.trace(S)
            gaps.append((removal_loss(u, S, exchange(u, S, order)) - least) / scale)
            greedy_gaps.append((removal_loss(u, S, order) - least) / scale)
            hits += gaps[-1] < 1e-12
    assert min(gaps) > -1e-12
    assert hits >= 40  # of 60
    assert np.mean(gaps) < 0.3 * np.mean(greedy_gaps)
    assert max(gaps) < 0.06


def test_so_many_exchanges_are_made_as_are_allowed():
    for seed in range(20):
        u, S = quadratic(seed)
        order = greedy_removal(u, S).order[:4]
        assert exchange(u, S, order, 0).tolist() == sorted(order.tolist())
        assert len(np.setdiff1d(exchange(u, S, order, 1), order)) <= 1


def test_nothing_is_exchanged_where_all_or_none_go():
    u, S = quadratic(0)
    assert exchange(u, S, np.arange(len(u))).tolist() == list(range(len(u)))
    assert exchange(u, S, np.arange(0)).tolist() == []
