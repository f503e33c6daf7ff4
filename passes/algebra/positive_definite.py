"""Positive definite matrices: how much ridge, the Cholesky factor, and the inverse and the solve that come from it.

Second moments of activations are singular as a rule (dead channels, duplicated channels, fewer rows than columns), so
some ridge always stands on the diagonal, and a matrix that still does not factor gets more of it.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotrf, dpotri  # pyright: ignore[reportAttributeAccessIssue]  # made at run time

Array = np.ndarray

# Tried in turn, relative to the mean diagonal, where a matrix is not positive definite to working precision.
_RESCUES = (0.0, *(10.0**power for power in range(-10, 7)))  # the last are for what is but rounding
_OF_NEGATIVE = 1.0  # the most where the diagonal is no sum of squares: rounding of moments leaves less than that


def damping(diagonal: Array, ridge: float) -> float:
    """The ridge in the units of a matrix with that diagonal (m,): ridge * its mean; ridge itself where that is 0."""
    mean = float(np.sum(diagonal, dtype=np.float64)) / max(len(diagonal), 1)
    return ridge * mean if mean > 0 else ridge


def factor(S: Array, added: float = 0.0) -> Array:
    """Lower Cholesky factor L of S + added * I, with as much more on the diagonal as it takes to be safe.

    S: (m, m) symmetric. Returns (m, m) float64, zero above the diagonal.
    Raises numpy.linalg.LinAlgError where no ridge helps: S holds NaN or infinity, or is far from positive.
    """
    S = np.asarray(S)
    if not len(S):
        return np.zeros((0, 0))
    most = _RESCUES[-1] if S.diagonal().sum() > 0 else _OF_NEGATIVE
    for rescue in (ridge for ridge in _RESCUES if ridge <= most):
        H = np.array(S, np.float64, order="C").T  # symmetric: the transpose is what LAPACK reads without a copy
        H[np.diag_indices_from(H)] += added + damping(S.diagonal(), rescue)
        smallest = len(S) * np.finfo(float).eps * H.diagonal().max()
        L, info = dpotrf(H, lower=1, clean=1, overwrite_a=1)
        if info == 0 and L.diagonal().min() ** 2 > smallest:
            return L
    raise np.linalg.LinAlgError("not positive semidefinite, or not finite")


def inverse(S: Array, added: float = 0.0) -> Array:
    """(S + added * I)^-1, (m, m) float64, symmetric to the bit. Raises as `factor` does."""
    L = factor(S, added)
    if not len(L):
        return L
    half, info = dpotri(L, lower=1, overwrite_c=1)
    assert info == 0, "a Cholesky factor with a positive diagonal has an inverse"
    whole = half + half.T
    whole[np.diag_indices_from(whole)] /= 2
    return whole


def solve(S: Array, B: Array, added: float = 0.0) -> Array:
    """X with (S + added * I) X = B; S: (m, m), B: (m, n) or (m,). Raises as `factor` does."""
    return solve_factored(factor(S, added), B)


def solve_factored(L: Array, B: Array) -> Array:
    """X with L L^T X = B; L: (m, m) of `factor`, B: (m, n) or (m,)."""
    return cho_solve((L, True), B, check_finite=False) if len(L) else np.zeros(B.shape)


def compact(W: Array) -> Array:
    """A matrix R with R^T R = W^T W and at most as many rows as columns; W: (n, m) float64.

    Least squares knows the filters of a consumer only through W^T W.
    """
    return np.linalg.qr(W, mode="r") if len(W) > W.shape[1] else W  # pyright: ignore[reportReturnType]  # mode="r"
