"""What the channels of a tensor give to a consumer, as one C x C matrix; every criterion without refit reads only that.

A consumer computes y = W u with weights W (n, C, k): n filters, C channels, k kernel positions. u is its im2col patch,
channel-major; A = E[u u^T] and mu = E[u] are its moments. With the covariance in the place of A the same functions
speak of what a bias cannot repair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray

# Elements of one panel of the (C*k, C*k) products: 32 MB in float64.
_PANEL = 1 << 22
_WIDE = 1024  # columns of W from which its products are made in single precision
_CONSTANT = 1e-6  # of the second moment


def covariance(A: Array, mu: Array) -> Array:
    """Sigma = A - mu mu^T. A: (m, m), mu: (m,). Returns (m, m) float64.

    What varies by less than a thousandth of its size is constant: A comes of products in single precision, whose
    rounding would else be taken for variance. Its row and column are zero.
    """
    mu = np.asarray(mu, np.float64)
    sigma = np.multiply.outer(mu, mu)
    np.subtract(A, sigma, out=sigma)
    constant = sigma.diagonal() <= _CONSTANT * np.asarray(A.diagonal(), np.float64)
    if constant.any():
        sigma[constant] = 0
        sigma[:, constant] = 0
    return sigma


def channel_gram(W: Array, A: Array) -> Array:
    """Second moment of what each channel adds to the consumer: G[c, d] = sum_j W_jc A_cd W_jd^T.

    In matrix form G = blk((W^T W) o A): o is the elementwise product, blk sums k x k blocks. So 1_T^T G 1_T is the
    mean squared error, summed over the filters, of leaving the channels T out.
    W: (n, C, k); A: (C*k, C*k), second moment or covariance. Returns (C, C) float64, symmetric.
    Needs O(n (C k)^2) multiplications and one panel of memory beside A.
    Source: ThiNet's objective (Luo et al. 2017, eq. 6) over all filters and positions, not a sample of them.
    """
    return _gram(W, lambda rows, columns: A[rows, columns])


def channel_gram_from_patches(W: Array, patches: Array) -> Array:
    """`channel_gram` for A = E[u u^T] over the rows of `patches` (M, C, k), which never stands in memory whole.

    For contractions too wide for a second moment (a flattened image): O((M + n) (C k)^2) multiplications.
    """
    U = np.asarray(patches, np.float64).reshape(len(patches), -1)
    return _gram(W, lambda rows, columns: U[:, rows].T @ U[:, columns] / len(U))


def _gram(W: Array, panel: Callable[[slice, slice], Array]) -> Array:
    n, C, k = W.shape
    flat = np.asarray(W, np.float64).reshape(n, C * k)
    if C * k > _WIDE and power_of_two(flat) == 1:
        flat = flat.astype(np.float32)
    G = np.zeros((C, C))
    step = max(1, _PANEL // max(1, C * k * k))
    for low in range(0, C, step):
        rows, columns = slice(low * k, min(low + step, C) * k), slice(low * k, C * k)
        product = (flat[:, rows].T @ flat[:, columns]).astype(np.float64, copy=False)
        product *= panel(rows, columns)
        G[low : low + step, low:] = product.reshape(-1, k, C - low, k).sum((1, 3))
    return np.triu(G) + np.triu(G, 1).T


def joint_gram(grams: Sequence[Array]) -> Array:
    """One Gram matrix for several consumers of the same C channels: sum_l G_l / tr(W_l A_l W_l^T), (C, C).

    tr(W A W^T) = 1^T G 1 is the energy of the consumer's whole output: each consumer counts its relative error. One
    whose output is zero (or constant, on covariances) counts nothing.
    """
    total = np.zeros_like(grams[0], np.float64)
    for G in grams:
        energy = float(G.sum())
        if energy > 0:
            total += G / energy
    return total


def fluctuation_scores(W: Array, sigma: Array) -> Array:
    """Error of leaving out one channel alone once the bias has taken over its mean: s_c = sum_j W_jc Sigma_cc W_jc^T.

    The diagonal of blk((W^T W) o Sigma). For k = 1 it is Var(u_c) ||W_:c||^2.
    W: (n, C, k); sigma: (C*k, C*k). Returns (C,) float64. Source: FLAP (An et al. 2024), WIFV, for any k.
    """
    blocks = np.asarray(W, np.float64).transpose(1, 0, 2)
    return ((blocks @ diagonal_blocks(sigma, W.shape[2])) * blocks).sum((1, 2))


def diagonal_blocks(A: Array, k: int) -> Array:
    """The k x k blocks on the diagonal of A (C*k, C*k), as a (C, k, k) float64 copy."""
    C = len(A) // k
    return np.asarray(A.reshape(C, k, C, k)[np.arange(C), :, np.arange(C), :], np.float64)


def power_of_two(X: Array) -> float:
    """1, or the power of two that brings numbers, whose squares single precision could not hold, near 1."""
    largest = float(max(X.max(initial=0), -X.min(initial=0)))
    if largest == 0 or not np.isfinite(largest) or 1e-12 < largest < 1e12:
        return 1.0
    return 2.0 ** -np.floor(np.log2(largest))
