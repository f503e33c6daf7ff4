"""The channel Gram matrix and its relatives, against sums over patches written out."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.algebra import gram
from onnx_prune.passes.algebra.gram import (
    channel_gram,
    channel_gram_from_patches,
    covariance,
    diagonal_blocks,
    fluctuation_scores,
    joint_gram,
)

SHAPES = [(5, 4, 9), (1, 6, 1), (7, 3, 2), (3, 1, 4)]


def consumer(n, C, k, rows=50, seed=0):
    """Integer weights and patches, so that every sum is exact."""
    rng = np.random.default_rng(seed)
    return rng.integers(-5, 6, (n, C, k)).astype(float), rng.integers(0, 9, (rows, C, k)).astype(float)


def moments(patches):
    U = patches.reshape(len(patches), -1)
    return U.T @ U / len(U), U.mean(0)


def contributions(W, patches):
    """x[j, i, c] = W_jc u_c(i): what channel c adds to filter j in row i."""
    return np.einsum("jck,ick->jic", W, patches)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gram_matrix_is_the_sum_over_filters_of_products_of_contributions(shape):
    W, patches = consumer(*shape)
    x = contributions(W, patches)
    np.testing.assert_allclose(channel_gram(W, moments(patches)[0]), np.einsum("jic,jid->cd", x, x) / 50, rtol=1e-13)


def test_a_transposed_layout_would_be_seen():
    W, patches = consumer(5, 4, 9)
    wrong = channel_gram(W, moments(patches.transpose(0, 2, 1))[0])
    assert not np.allclose(wrong, channel_gram(W, moments(patches)[0]), rtol=1e-3)


def test_panels_change_nothing(monkeypatch):
    W, patches = consumer(5, 7, 4)
    A, _ = moments(patches)
    whole = channel_gram(W, A)
    monkeypatch.setattr(gram, "_PANEL", 7 * 4 * 4 * 2)  # two channels at a time, and one left over
    np.testing.assert_allclose(channel_gram(W, A), whole, rtol=1e-14)


def test_patches_give_what_their_second_moment_gives():
    W, patches = consumer(5, 4, 9)
    expected = channel_gram(W, moments(patches)[0])
    np.testing.assert_allclose(channel_gram_from_patches(W, patches.astype(np.float32)), expected, rtol=1e-13)


def test_float32_moments_are_summed_in_float64():
    W, patches = consumer(3, 5, 4, rows=64)
    A, _ = moments(patches)
    G = channel_gram(W.astype(np.float32), A.astype(np.float32))
    assert G.dtype == np.float64
    np.testing.assert_allclose(G, channel_gram(W, A), rtol=1e-6)


def test_dropping_channels_costs_what_the_gram_matrix_says():
    W, patches = consumer(5, 6, 4)
    G = channel_gram(W, moments(patches)[0])
    x = contributions(W, patches)
    T = [1, 4, 5]
    assert G[np.ix_(T, T)].sum() == pytest.approx(np.square(x[:, :, T].sum(2)).sum() / 50, rel=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_fluctuation_is_the_error_of_dropping_one_channel_with_its_mean_in_the_bias(shape):
    W, patches = consumer(*shape)
    A, mu = moments(patches)
    x = contributions(W, patches)
    sigma = covariance(A, mu)
    np.testing.assert_allclose(fluctuation_scores(W, sigma), x.var(1).sum(0), rtol=1e-10)
    np.testing.assert_allclose(fluctuation_scores(W, sigma), channel_gram(W, sigma).diagonal(), rtol=1e-12)


def test_a_constant_channel_does_not_fluctuate():
    W, patches = consumer(4, 3, 2)
    patches[:, 1] = 7
    scores = fluctuation_scores(W, covariance(*moments(patches)))
    assert scores[1] == pytest.approx(0, abs=1e-10)
    assert scores[[0, 2]].min() > 1


def test_joint_gram_counts_every_consumer_by_its_relative_error():
    first, second = (channel_gram(W, moments(u)[0]) for W, u in (consumer(5, 4, 9), consumer(2, 4, 1, seed=1)))
    joint = joint_gram([first, 100 * second, np.zeros((4, 4))])
    np.testing.assert_allclose(joint, first / first.sum() + second / second.sum(), rtol=1e-13)
    assert joint.sum() == pytest.approx(2)


def test_diagonal_blocks_are_those_of_the_channels():
    A = np.arange(36.0).reshape(6, 6)
    np.testing.assert_array_equal(diagonal_blocks(A, 2)[1], A[2:4, 2:4])
