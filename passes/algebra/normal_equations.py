"""Least squares over batches that are seen once: sums of x, y, x x^T, x y^T and y^2 in float64, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .least_squares import Refit, refit_from_moments

Array = np.ndarray

# Relative to the mean variance of the inputs. Flat below 1e-2 for ResNet-56 with many rows; fewer rows want more.
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class NormalEquations:
    """Moments of input rows x (m,) of the pruned network and target rows y (n,) of the original one.

    Memory: m^2 + m n float64.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.rows = 0
        self._x = np.zeros(inputs)
        self._y = np.zeros(outputs)
        self._xx = np.zeros((inputs, inputs))
        self._xy = np.zeros((inputs, outputs))
        self._yy = np.zeros(outputs)

    def add(self, X: Array, Y: Array) -> None:
        """Count a batch: X (rows, m), Y (rows, n). Products of one batch are made in its own type, sums in float64."""
        self.rows += len(X)
        self._x += X.sum(0, dtype=np.float64)
        self._y += Y.sum(0, dtype=np.float64)
        self._xx += X.T @ X
        self._xy += X.T @ Y
        self._yy += np.square(Y).sum(0, dtype=np.float64)

    def __add__(self, other: NormalEquations) -> NormalEquations:
        """The normal equations of both sets of rows."""
        both = NormalEquations(len(self._x), len(self._y))
        both.rows = self.rows + other.rows
        both._x, both._y = self._x + other._x, self._y + other._y
        both._xx, both._xy, both._yy = self._xx + other._xx, self._xy + other._xy, self._yy + other._yy
        return both

    def retargeted(self, batches: Iterable[tuple[Array, Array]]) -> NormalEquations:
        """The same input rows with other targets: batches (X, Y) of all the rows; X^T X is not computed anew."""
        other = NormalEquations(len(self._x), len(self._y))
        other.rows, other._x, other._xx = self.rows, self._x, self._xx
        for X, Y in batches:
            other._xy += X.T @ Y
            other._y += Y.sum(0, dtype=np.float64)
            other._yy += np.square(Y).sum(0, dtype=np.float64)
        return other

    def solve(self, W: Array, ridge: float = 1e-3) -> Refit:
        """The weights and bias of `refit_from_moments`, near W (n, K, k) with K*k = m. At least one row is needed."""
        N = self.rows
        return refit_from_moments(self._xy / N, self._xx / N, self._x / N, self._y / N, W, ridge)

    def error(self, refit: Refit) -> float:
        """Mean over the rows of |y - W x - b|^2, the sum over the n outputs, exactly, from the moments alone."""
        N = self.rows
        W = refit.weight.reshape(len(self._y), len(self._x))
        mean_x, mean_y = self._x / N, self._y / N
        # about the means, where the sums cancel least
        variance = float(np.sum(self._yy / N - mean_y**2))
        spread = W @ (self._xx / N) - np.multiply.outer(W @ mean_x, mean_x)
        cross = self._xy.T / N - np.multiply.outer(mean_y, mean_x)
        offset = mean_y - W @ mean_x - refit.bias
        return max(variance + float(np.sum((spread - 2 * cross) * W)) + float(offset @ offset), 0.0)


def choose_ridge(
    fitted: NormalEquations, held_out: NormalEquations, W: Array, ridges: Sequence[float] = RIDGES
) -> float:
    """The ridge whose fit on one half of the rows errs least on the other; of equals the largest.

    Then refit on all: `(fitted + held_out).solve(W, ridge)`. The halves should hold different images. One Cholesky
    factorisation of (m, m) for each ridge.
    """
    return min(sorted(ridges, reverse=True), key=lambda ridge: held_out.error(fitted.solve(W, ridge)))
