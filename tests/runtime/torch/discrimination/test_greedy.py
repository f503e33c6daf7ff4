"""The greedy algorithm on least squares, where it is orthogonal matching pursuit, and where it stops."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.runtime.torch.discrimination.greedy import choose_greedily


class LeastSquares:
    """L = |y - X w|^2 / 2, and a descent that goes all the way."""

    def __init__(self, seed=0, channels=12):
        rng = np.random.default_rng(seed)
        self.X = rng.standard_normal((60, channels)) * rng.uniform(0.3, 2, channels)
        self.y = self.X @ (rng.standard_normal(channels) * (rng.random(channels) < 0.5)) + rng.standard_normal(60)
        self.w, self.open, self.losses = np.zeros(channels), [], []

    def look(self):
        rest = self.y - self.X @ self.w
        self.losses.append(rest @ rest / 2)
        return self.losses[-1], np.abs(self.X.T @ rest)

    def admit(self, channels):
        self.open += channels.tolist()

    def descend(self):
        self.w[self.open] = np.linalg.lstsq(self.X[:, self.open], self.y, rcond=None)[0]


@pytest.mark.parametrize("seed", range(4))
def test_on_least_squares_it_is_matching_pursuit(seed):
    layer, other = LeastSquares(seed), LeastSquares(seed)
    X, y, wanted = other.X, other.y, []
    for _ in range(5):
        coefficients = np.linalg.lstsq(X[:, wanted], y, rcond=None)[0] if wanted else np.zeros(0)
        correlation = np.abs((y - X[:, wanted] @ coefficients) @ X)
        wanted.append(int(np.argmax(np.where(np.isin(np.arange(12), wanted), -1, correlation))))
    assert choose_greedily(layer, 5).units == tuple(sorted(wanted))
    assert layer.open == wanted


def test_it_stops_where_a_channel_hardly_helps():
    """|L_(t-1) - L_t| / L_0 after each choice, read off a run without a stop."""
    free = LeastSquares(1)
    choose_greedily(free, 12)
    falls = -np.diff(free.losses) / free.losses[0]
    tolerance = float(np.sort(falls)[4])
    expected = int(np.argmax(falls <= tolerance)) + 1
    assert 1 < expected < 12
    assert len(choose_greedily(LeastSquares(1), 12, tolerance=tolerance).units) == expected
    assert len(choose_greedily(LeastSquares(1), expected - 1, tolerance=tolerance).units) == expected - 1
    assert len(choose_greedily(LeastSquares(1), 12, tolerance=1.0).units) == 1


class Told:
    """Channels in their order, and losses as they are given."""

    def __init__(self, losses):
        self.left = list(losses)

    def look(self):
        return self.left.pop(0), np.arange(9.0, 0, -1)

    def admit(self, channels):
        pass

    def descend(self):
        pass


def test_a_loss_that_rises_is_no_reason_to_stop():
    """|L_(t-1) - L_t| of equation 12: after the second choice the loss is higher, after the fourth alike."""
    found = choose_greedily(Told([8.0, 5.0, 6.0, 3.0, 2.999, 1.0]), 9, tolerance=1e-3)
    assert found.units == (0, 1, 2, 3)
    assert found.losses == (8.0, 5.0, 6.0, 3.0, 2.999)


def test_several_at_once_are_the_largest_of_one_look():
    layer = LeastSquares(2)
    first = np.argsort(-layer.look()[1])[:3]
    assert set(choose_greedily(LeastSquares(2), 3, at_once=3).units) == set(first.tolist())
    assert len(choose_greedily(LeastSquares(2), 4, at_once=3).units) == 4
