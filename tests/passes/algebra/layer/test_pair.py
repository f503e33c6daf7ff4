"""Two layers fitted together: the gradient is that of the loss, and what is found is judged on other samples."""

from dataclasses import replace

import numpy as np
import pytest
from onnx_prune.passes.algebra.im2col import patch_table
from onnx_prune.passes.algebra.layer.activation_functions import Clipped, gated, sigmoid
from onnx_prune.passes.algebra.layer.pair import Maps, PairFit, _Net
from onnx_prune.passes.algebra.least_squares import Refit

SIDE = 5
RELU, SILU = Clipped(), gated(sigmoid())


def table(stride=1):
    grid = -(-SIDE // stride)
    attrs = {"pads": [1, 1, 1, 1], "strides": [stride, stride]}
    return patch_table(attrs, (SIDE, SIDE), (grid, grid), (3, 3), transposed=False)


def layers(inputs, hidden, outputs, seed=0):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((hidden, inputs, 9)) / 3, rng.standard_normal((outputs, hidden, 9)) / 3
    return Refit(first, rng.standard_normal(hidden) / 3), Refit(second, rng.standard_normal(outputs) / 3)


def problem(fit, hidden=6, samples=64, seed=1):
    """Maps whose targets are what two layers of so many hidden channels give, with an offset."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, SIDE * SIDE, 3)).astype(np.float32)
    offset = rng.standard_normal((samples, len(fit.second), 4)).astype(np.float32)
    maps = Maps(X, np.zeros_like(offset), offset)
    given = _Net(fit, layers(3, hidden, 4)).forward(maps)[3]
    return maps._replace(Z=given.reshape(offset.shape))


def cut(keep):
    first, second = layers(3, 6, 4)
    return Refit(first.weight[:keep], first.bias[:keep]), Refit(second.weight[:, :keep], second.bias)


@pytest.mark.parametrize("inner", [RELU, SILU])
@pytest.mark.parametrize("outer", [None, RELU])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_is_that_of_the_loss(inner, outer, stride):
    fit = PairFit(table(), table(stride), inner, outer)
    maps, net = problem(fit), _Net(fit, cut(3))
    everything = np.arange(len(maps.X))
    gradients = net._gradients(maps, 1.0)
    for values, gradient in zip(net.moving, gradients, strict=True):
        before, way = values.copy(), gradient / np.linalg.norm(gradient)
        errors = []
        for step in (2e-3, -2e-3):
            values[...] = before + np.float32(step) * way
            errors.append(net.error(maps, everything) / maps.Z.size)
        values[...] = before
        assert np.isclose((errors[0] - errors[1]) / 4e-3, np.linalg.norm(gradient), rtol=0.02)


@pytest.mark.parametrize("inner", [RELU, SILU])
def test_together_they_come_nearer_on_samples_that_no_step_saw(inner):
    fit = PairFit(table(), table(2), inner, None, epochs=30)
    maps, start = problem(fit), cut(3)
    found = fit(start, maps)
    assert found is not None
    others = problem(fit, seed=5)
    everything = np.arange(len(others.X))
    before, after = (_Net(fit, pair).error(others, everything) for pair in (start, found))
    assert after < 0.9 * before
    assert found[0].weight.shape == start[0].weight.shape
    assert found[1].weight.shape == start[1].weight.shape


def test_the_result_follows_from_the_seed_alone():
    fit = PairFit(table(), table(), RELU, None, epochs=2)
    maps = problem(fit)
    one, two, other = (f(cut(3), maps) for f in (fit, fit, replace(fit, seed=1)))
    assert np.array_equal(one[0].weight, two[0].weight)
    assert not np.array_equal(one[0].weight, other[0].weight)


def test_what_cannot_come_nearer_stays():
    fit = PairFit(table(), table(), RELU, None)
    assert fit(layers(3, 6, 4), problem(fit)) is None  # there already
    assert replace(fit, rate=1e3)(cut(3), problem(fit)) is None  # steps that lead away


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_maps_that_cannot_be_computed_with_change_nothing(value):
    fit = PairFit(table(), table(), RELU, None)
    maps = problem(fit)
    maps.X[3, 2, 1] = value
    with np.errstate(all="raise"):
        found = fit(cut(3), maps)
    assert found is None or all(np.isfinite(r.weight).all() and np.isfinite(r.bias).all() for r in found)


def test_few_samples_and_targets_of_zeros_change_nothing():
    fit = PairFit(table(), table(), RELU, None)
    maps = problem(fit)
    assert fit(cut(3), maps.at(np.arange(7))) is None
    assert fit(cut(3), maps._replace(Z=np.zeros_like(maps.Z))) is None
