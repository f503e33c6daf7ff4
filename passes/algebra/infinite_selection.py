"""Infinite feature selection: how much a feature counts on all paths through the graph of all features."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
_REACH = 0.9  # of the longest reach at which the sum over paths still converges: the paper's


def infinite_selection(covariance: Array, mixing: float = 0.5) -> Array:
    """Scores of features, (C,) float64, > 0: row sums of (I - r A)^-1 - I = sum_l (r A)^l, r = 0.9 / spectral radius.

    A_ij = mixing * max(s_i, s_j) + (1 - mixing) * (1 - |c_ij|): s_i the standard deviation of feature i over the
    largest one, c_ij the correlation (Pearson's, which moments know; the paper ranks samples). covariance: (C, C).
    Source: Roffo, Melzi, Cristani, Infinite feature selection, ICCV 2015.
    """
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0))
    scale = np.where(deviation > 0, deviation, 1)
    correlation = np.abs(covariance / np.multiply.outer(scale, scale))
    np.fill_diagonal(correlation, 1)
    spread = deviation / (deviation.max(initial=0) or 1.0)
    A = mixing * np.maximum.outer(spread, spread) + (1 - mixing) * (1 - np.minimum(correlation, 1))
    radius = float(np.linalg.eigvalsh(A)[-1]) or 1.0
    ones = np.ones(len(A))
    return np.linalg.solve(np.eye(len(A)) - _REACH / radius * A, ones) - ones
