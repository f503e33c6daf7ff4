"""Least squares over batches that are seen once: sums of x, y, x x^T, x y^T and y^2 in float64, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .gram import covariance
from .least_squares import Refit
from .positive_definite import damping, factor, solve_factored

Array = np.ndarray

# Relative to the mean variance of the inputs. Flat below 1e-2 for ResNet-56 with many rows; fewer rows want more.
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(slots=True)
class _OfInputs:
    """What solutions for other targets share: the (m, m) covariance of the inputs, and the factor of the last ridge.

    centred: whether it is the covariance, or the second moment; of: the weights that were multiplied with it last
    """

    Sigma: Array
    centred: bool
    _ridge: float | None = None
    _L: Array | None = None
    _of: Array | None = None
    _product: Array | None = None

    def times(self, W: Array, flat: Array) -> Array:
        """Sigma W^T, (m, n); flat: W as (n, m)."""
        product = self._product if self._of is W else None
        if product is None:
            product = self.Sigma @ flat.T
            self._of, self._product = W, product
        return product

    def factor(self, ridge: float) -> Array:
        if self._L is None or ridge != self._ridge:
            self._L = None  # one at a time: of 4,608 inputs each takes 170 MB
            self._L, self._ridge = factor(self.Sigma, damping(self.Sigma.diagonal(), ridge)), ridge
        return self._L


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
        self._of_inputs: _OfInputs | None = None

    def add(self, X: Array, Y: Array) -> None:
        """Count a batch: X (rows, m), Y (rows, n). Products of one batch are made in its own type, sums in float64."""
        self.rows += len(X)
        self._x += X.sum(0, dtype=np.float64)
        self._xx += X.T @ X
        self._of_inputs = None
        self._count_targets(X, Y)

    def _count_targets(self, X: Array, Y: Array) -> None:
        self._y += Y.sum(0, dtype=np.float64)
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
        other.rows, other._x, other._xx, other._of_inputs = self.rows, self._x, self._xx, self._of_inputs
        for X, Y in batches:
            other._count_targets(X, Y)
        return other

    def of_inputs(self, chosen: Array) -> NormalEquations:
        """The same rows with some of the inputs: chosen (m,) bool."""
        other = NormalEquations(int(chosen.sum()), len(self._y))
        other.rows, other._x, other._xx = self.rows, self._x[chosen], self._xx[np.ix_(chosen, chosen)]
        other._xy, other._y, other._yy = self._xy[chosen], self._y, self._yy
        return other

    def covariances(self) -> tuple[Array, Array]:
        """Of the inputs, (m, m), and of inputs with outputs, (m, n)."""
        N = self.rows
        mean_x, mean_y = self._x / N, self._y / N
        return self._xx / N - np.multiply.outer(mean_x, mean_x), self._xy / N - np.multiply.outer(mean_x, mean_y)

    def solve(self, W: Array, ridge: float = 1e-3, *, bias: Array | None = None) -> Refit:
        """Weights and bias that take inputs of one network to the outputs of another, near the weights W (n, K, k).

        W' = argmin E|y - W' x - b'|^2 + lam |W' - W|^2 with K*k = m and lam = ridge * mean variance of x; then
        b' = E[y] - W' E[x].
        Source: the asymmetric reconstruction of He et al. 2017 (after Zhang et al. 2015). At least one row is needed.
        bias: (n,), one that stays; by default it is fitted too. The last factor is kept for other targets. Raises
        numpy.linalg.LinAlgError where the rows hold what is not finite.
        """
        N, n = self.rows, len(self._y)
        mean_x = self._x / N if bias is None else np.zeros(len(self._x))
        mean_y = self._y / N if bias is None else bias
        cross = self._xy / N - np.multiply.outer(self._x / N, mean_y)  # for a bias of its own that of the covariance
        if self._of_inputs is None or self._of_inputs.centred != (bias is None):
            self._of_inputs = _OfInputs(covariance(self._xx / N, mean_x), centred=bias is None)
        Sigma = self._of_inputs.Sigma
        flat = np.asarray(W, np.float64).reshape(n, -1)
        missing = cross - self._of_inputs.times(W, flat)
        missing[Sigma.diagonal() == 0] = 0  # what does not vary explains nothing
        weight = flat + solve_factored(self._of_inputs.factor(ridge), missing).T
        return Refit(weight.reshape(W.shape), mean_y - weight @ mean_x)

    def centred(self, W: Array, *, bias: Array | None = None) -> Refit:
        """The weights as they are, with the bias that leaves the mean of the targets, or the one that stays."""
        flat = np.asarray(W, np.float64).reshape(len(self._y), -1)
        return Refit(W, (self._y - flat @ self._x) / self.rows if bias is None else bias)

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
