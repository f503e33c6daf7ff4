"""An order in which channels go, and the exact error after each step, with and without refitting what stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .positive_definite import damping, factor

Array = np.ndarray


class Removal(NamedTuple):
    """Nested removals: after m steps `order[:m]` is gone and the harm is `harm[m - 1]`.

    order: (C,) int64, channels, the first to go first; harm: (C,) float64. With a refit it never falls; without
    one it may, where contributions cancel.
    """

    order: Array
    harm: Array


class Objective(NamedTuple):
    """What removing channels costs one consumer, and how much that counts: weight * tr((W - W') S (W - W')^T).

    W: (n, C, k) float64; S: (C*k, C*k), channel-major, the second moment of its input, or the covariance where it gets
    a new bias. Objectives that are summed have the same C; n and k are their own.
    """

    W: Array
    S: Array
    weight: float = 1.0


def relative(W: Array, S: Array) -> Objective:
    """The objective of a relative error: weight = 1 / tr(W S W^T), or 0 where that energy is 0."""
    flat = np.asarray(W, np.float64).reshape(len(W), -1)
    energy = float(np.sum((flat @ S) * flat))
    return Objective(W, S, 1.0 / energy if energy > 0 else 0.0)


def columns(channels: Array, k: int) -> Array:
    """The columns of a channel-major matrix that belong to `channels`, k each, in their order."""
    return (np.asarray(channels, np.int64)[:, None] * k + np.arange(k)).ravel()


def drop_harm(G: Array, order: Array) -> Array:
    """Error after each removal when what stays keeps its weights: 1_T^T G 1_T for T = order[:m], m = 1, 2, ...

    G: (C, C), the channel Gram matrix; order: distinct channels. Returns float64, one a removal. O(C^2).
    """
    P = G[np.ix_(order, order)]
    return np.cumsum(2 * np.tril(P, -1).sum(1) + P.diagonal())


def rescale_harm(G: Array, order: Array, ridge: float = 1e-10) -> Array:
    """Error after each removal when every channel that stays gets its best scalar: min_w |1 - w|_G^2, w_T = 0.

    It is `refit_harm` of a single filter of ones on the channel Gram matrix (C, C).
    """
    return refit_harm([Objective(np.ones((1, len(G), 1)), G)], order, ridge)


def refit_harm(objectives: Sequence[Objective], order: Array, ridge: float) -> Array:
    """Error after each removal when every weight that stays is refitted by ridge regression, for any order.

    min over W'_S of tr((W - W') H (W - W')^T), W'_T = 0, H = S + ridge * mean(diag S) * I, for T = order[:m]: with
    H = L L^T in the order "stays longest first" it is the sum of squares of the last |T| k columns of W L, so that one
    Cholesky factor gives the whole curve. Errors are summed over the objectives.
    order: distinct channels, all or some. Returns float64, one a removal. O((C k)^3 / 3 + n (C k)^2).
    """
    total = np.zeros(len(order))
    for W, S, weight in objectives:
        n, C, k = W.shape
        permutation = columns(np.concatenate([np.setdiff1d(np.arange(C), order), order[::-1]]), k)
        L = factor(S[np.ix_(permutation, permutation)], damping(S.diagonal(), ridge))
        squares = np.square(np.asarray(W, np.float64).reshape(n, C * k)[:, permutation] @ L).sum(0)
        total += weight * np.cumsum(squares.reshape(C, k).sum(1)[::-1])[: len(order)]
    return total
