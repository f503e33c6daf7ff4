"""Refits against numpy's least squares on the rows, and what one refit has over another."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.algebra.gram import covariance
from onnx_prune.passes.algebra.least_squares import Refit, refit_bias, refit_channel, refit_full
from onnx_prune.passes.algebra.normal_equations import NormalEquations, choose_ridge
from onnx_prune.passes.algebra.positive_definite import factor, inverse, solve

SHAPES = [(6, 10, 1), (4, 6, 9), (1, 5, 2)]
TINY = 1e-12


class Layer:
    """y = W u + b over rows of correlated, skewed patches; the even channels stay."""

    def __init__(self, n, C, k, rows=600, seed=0):
        rng = np.random.default_rng(seed)
        m = C * k
        hidden = rng.standard_normal((rows, m // 2 + 1))
        self.patches = np.maximum(hidden @ rng.standard_normal((m // 2 + 1, m)) + rng.standard_normal((rows, m)), 0)
        self.patches = self.patches.reshape(rows, C, k)
        self.W, self.b = rng.standard_normal((n, C, k)), rng.standard_normal(n)
        self.kept = np.arange(0, C, 2)
        self.inputs = self.patches[:, self.kept].reshape(rows, -1)
        self.y = self.output(self.W, self.patches, self.b)

    @staticmethod
    def output(weight, patches, bias):
        return np.tensordot(patches, weight, ([1, 2], [1, 2])) + bias

    @property
    def moments(self):
        U = self.patches.reshape(len(self.patches), -1)
        return U.T @ U / len(U), U.mean(0)

    def error(self, refit):
        """Mean squared error of a refit on the rows, summed over the filters."""
        return np.square(self.y - self.output(refit.weight, self.patches[:, self.kept], refit.bias)).sum(1).mean()

    def refits(self):
        """Cut, bias, channel, full, each with hardly any ridge."""
        A, mu = self.moments
        yield Refit(self.W[:, self.kept], self.b)
        yield refit_bias(self.W, self.b, mu, self.kept)
        yield refit_channel(self.W, self.b, A, mu, self.kept, TINY)
        yield refit_full(self.W, self.b, A, mu, self.kept, TINY)


@pytest.fixture(params=SHAPES, ids=str)
def layer(request):
    return Layer(*request.param)


def with_ones(X):
    return np.hstack([X, np.ones((len(X), 1))])


def test_full_is_what_numpy_fits_to_the_rows(layer):
    *_, full = layer.refits()
    expected = np.linalg.lstsq(with_ones(layer.inputs), layer.y, rcond=None)[0]
    np.testing.assert_allclose(full.weight.reshape(len(layer.b), -1), expected[:-1].T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(full.bias, expected[-1], rtol=1e-7)


def test_channel_is_what_numpy_fits_one_scalar_a_channel(layer):
    _, _, channel, _ = layer.refits()
    x = np.einsum("jck,ick->jic", layer.W[:, layer.kept], layer.patches[:, layer.kept])
    target = layer.y - layer.b
    centred = (x - x.mean(1, keepdims=True)).reshape(-1, len(layer.kept))
    w = np.linalg.lstsq(centred, (target - target.mean(0)).T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(channel.weight, layer.W[:, layer.kept] * w[:, None], rtol=1e-8)


def test_without_a_mean_channel_is_the_papers_fit_without_intercept(layer):
    A, mu = layer.moments
    refit = refit_channel(layer.W, layer.b, A, 0 * mu, layer.kept, TINY)
    x = np.einsum("jck,ick->jic", layer.W[:, layer.kept], layer.patches[:, layer.kept]).reshape(-1, len(layer.kept))
    w = np.linalg.lstsq(x, (layer.y - layer.b).T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(refit.weight, layer.W[:, layer.kept] * w[:, None], rtol=1e-8)
    np.testing.assert_array_equal(refit.bias, layer.b)


def test_every_refit_does_better_than_the_one_before(layer):
    errors = [layer.error(refit) for refit in layer.refits()]
    assert (np.diff(errors) < 0).all(), errors


def test_the_mean_of_every_filter_is_kept(layer):
    cut, *others = layer.refits()
    means = [layer.output(r.weight, layer.patches[:, layer.kept], r.bias).mean(0) for r in (cut, *others)]
    for mean in means[1:]:
        np.testing.assert_allclose(mean, layer.y.mean(0), rtol=1e-9, atol=1e-12)
    assert not np.allclose(means[0], layer.y.mean(0), rtol=1e-3)


def test_keeping_everything_changes_nothing_whatever_the_ridge(layer):
    A, mu = layer.moments
    everything = np.arange(layer.W.shape[1])
    for ridge in (1e-6, 1.0):
        refit = refit_full(layer.W, layer.b, A, mu, everything, ridge)
        np.testing.assert_array_equal(refit.weight, layer.W)
        np.testing.assert_array_equal(refit.bias, layer.b)
        scaled = refit_channel(layer.W, layer.b, A, mu, everything, ridge)
        np.testing.assert_allclose(scaled.weight, layer.W, rtol=1e-9)


def test_the_ridge_pulls_to_the_original_weights(layer):
    A, mu = layer.moments
    kept = layer.W[:, layer.kept]
    distances = [
        np.linalg.norm(refit_full(layer.W, layer.b, A, mu, layer.kept, r).weight - kept) for r in (1e-6, 1, 1e3, 1e9)
    ]
    assert (np.diff(distances) < 0).all()
    assert distances[-1] < 1e-6 * np.linalg.norm(kept)


def test_the_ridge_is_that_of_the_penalised_problem(layer):
    A, mu = layer.moments
    lam = 0.1 * np.trace(covariance(A, mu)) / len(mu)
    n, rows = len(layer.b), len(layer.inputs)
    refit = refit_full(layer.W, layer.b, A, mu, layer.kept, 0.1)
    start = layer.W[:, layer.kept].reshape(n, -1)
    X = np.vstack([layer.inputs - layer.inputs.mean(0), np.sqrt(lam * rows) * np.eye(start.shape[1])])
    Y = np.vstack([layer.y - layer.y.mean(0), np.sqrt(lam * rows) * start.T])
    expected = np.linalg.lstsq(X, Y, rcond=None)[0].T
    np.testing.assert_allclose(refit.weight.reshape(n, -1), expected, rtol=1e-9)


def test_channels_that_are_constant_dead_or_doubled_do_no_harm():
    layer = Layer(4, 8, 2)
    layer.patches[:, 0] = 3.0
    layer.patches[:, 2] = 0.0
    layer.patches[:, 6] = layer.patches[:, 4]
    layer.y = layer.output(layer.W, layer.patches, layer.b)
    A, mu = layer.moments
    W = layer.W
    refit = refit_full(W, layer.b, A, mu, layer.kept, 1e-6)
    np.testing.assert_allclose(refit.weight[:, :2], W[:, [0, 2]], atol=1e-9)
    np.testing.assert_allclose(refit.weight[:, 2] - W[:, 4], refit.weight[:, 3] - W[:, 6], atol=1e-6)
    singular = refit_full(W, layer.b, A, mu, layer.kept, 0.0)
    assert layer.error(singular) == pytest.approx(layer.error(refit), rel=1e-6)
    assert np.abs(singular.weight).max() < 2 * np.abs(refit.weight).max()


def test_a_removed_constant_channel_goes_into_the_bias_exactly():
    layer = Layer(3, 4, 2)
    layer.patches[:, 1] = 5.0
    layer.y = layer.output(layer.W, layer.patches, layer.b)
    layer.kept = np.array([0, 2, 3])
    A, mu = layer.moments
    for refit in (refit_bias(layer.W, layer.b, mu, layer.kept), refit_full(layer.W, layer.b, A, mu, layer.kept)):
        assert layer.error(refit) < 1e-20


def test_nothing_kept_leaves_the_mean():
    layer = Layer(3, 4, 2)
    A, mu = layer.moments
    refit = refit_full(layer.W, layer.b, A, mu, np.array([], int))
    assert refit.weight.shape == (3, 0, 2)
    np.testing.assert_allclose(refit.bias, layer.y.mean(0))


def normal_equations(X, Y, batches=4):
    equations = NormalEquations(X.shape[1], Y.shape[1])
    for x, y in zip(np.array_split(X, batches), np.array_split(Y, batches), strict=True):
        equations.add(x, y)
    return equations


def test_on_its_own_inputs_the_asymmetric_form_is_the_full_refit(layer):
    A, mu = layer.moments
    ours = normal_equations(layer.inputs, layer.y).solve(layer.W[:, layer.kept], TINY)
    full = refit_full(layer.W, layer.b, A, mu, layer.kept, TINY)
    np.testing.assert_allclose(ours.weight, full.weight, rtol=1e-6)
    np.testing.assert_allclose(ours.bias, full.bias, rtol=1e-6)


def test_other_inputs_are_fitted_as_numpy_fits_them(layer):
    rng = np.random.default_rng(1)
    X = layer.inputs + 0.3 * rng.standard_normal(layer.inputs.shape)
    equations = normal_equations(X, layer.y)
    refit = equations.solve(layer.W[:, layer.kept], TINY)
    expected = np.linalg.lstsq(with_ones(X), layer.y, rcond=None)[0]
    assert refit.weight.shape == layer.W[:, layer.kept].shape
    np.testing.assert_allclose(refit.weight.reshape(len(layer.b), -1), expected[:-1].T, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(refit.bias, expected[-1], rtol=1e-7)
    moved = normal_equations(X, layer.y + 1).solve(refit.weight, TINY)
    assert not np.allclose(moved.bias, expected[-1], rtol=1e-3)


def test_the_error_from_the_moments_is_the_error_on_the_rows(layer):
    equations = normal_equations(layer.inputs, layer.y)
    for refit in layer.refits():
        assert equations.error(refit) == pytest.approx(layer.error(refit), rel=1e-10)
    shifted = Refit(refit.weight, refit.bias + 0.01)
    assert equations.error(shifted) != pytest.approx(layer.error(refit), rel=1e-10)


def test_many_batches_of_float32_stay_within_the_rounding_of_one():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((500, 3)).astype(np.float32), rng.standard_normal((500, 2)).astype(np.float32)
    W = np.zeros((2, 3, 1))
    whole = normal_equations(X.astype(np.float64), Y.astype(np.float64), 1).solve(W)
    parts = (normal_equations(X[:200], Y[:200], 7) + normal_equations(X[200:], Y[200:], 3)).solve(W)
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=3e-6)
    np.testing.assert_allclose(parts.bias, whole.bias, rtol=3e-6)


def test_the_ridge_is_the_one_that_errs_least_on_other_rows():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((2, 20, 1))
    X = rng.standard_normal((60, 20))
    Y = X @ W[:, :, 0].T + 3 * rng.standard_normal((60, 2))
    few, other = normal_equations(X[:30], Y[:30]), normal_equations(X[30:], Y[30:])
    ridges = (1e-6, 1e-2, 1e2)
    errors = {
        r: np.square(Y[30:] - Layer.output(f.weight, X[30:, :, None], f.bias)).sum()
        for r in ridges
        for f in [few.solve(W, r)]
    }
    assert choose_ridge(few, other, W, ridges) == min(errors, key=errors.__getitem__) == 1e2
    far = W + 10 * rng.standard_normal(W.shape)  # pulled to the wrong place, a heavy ridge is the worst
    assert choose_ridge(few, other, far, ridges) < 1e2


def test_positive_definite_helpers_solve_and_invert():
    B = np.random.default_rng(0).standard_normal((30, 6))
    S = B.T @ B
    np.testing.assert_allclose(inverse(S, 0.5) @ (S + 0.5 * np.eye(6)), np.eye(6), atol=1e-12)
    np.testing.assert_array_equal(inverse(S), inverse(S).T)
    np.testing.assert_allclose(S @ solve(S, B.T), B.T, atol=1e-10)


def test_a_matrix_that_rounding_left_slightly_indefinite_still_factors():
    B = np.random.default_rng(0).standard_normal((3, 6))
    S = B.T @ B - 1e-9 * np.eye(6)
    L = factor(S)
    assert np.abs(L @ L.T - S).max() < 1e-6
    with pytest.raises(np.linalg.LinAlgError, match="not positive semidefinite"):
        factor(-S - 10 * np.eye(6))
