"""Refit what stays of a consumer so that it computes what it did: new weights for the kept channels and a new bias.

y = W u + b over patches u with moments A = E[u u^T], mu = E[u], Sigma = A - mu mu^T. Removed channels are
T, kept ones S. All in float64. On the same kept set the error E|y - y'|^2 only falls: cut, `bias`, `channel`, `full`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .gram import channel_gram, covariance
from .greedy import channel_scalars
from .positive_definite import damping, solve
from .removal import columns

Array = np.ndarray


class Refit(NamedTuple):
    """New constants of a consumer. weight: (n, K, k) for the K kept channels in order; bias: (n,); float64."""

    weight: Array
    bias: Array


def refit_bias(W: Array, b: Array, mu: Array, kept: Array) -> Refit:
    """Weights as they are, the mean of what is lost into the bias: b' = b + W_T mu_T.

    W: (n, C, k); b: (n,); mu: (C*k,); kept: (K,) channels. Source: FLAP (An et al. 2024), baseline bias.
    """
    W = np.asarray(W, np.float64)
    return _with_mean(W, b, mu, kept, W[:, kept])


def refit_channel(W: Array, b: Array, A: Array, mu: Array, kept: Array, ridge: float = 1e-3) -> Refit:
    """One scalar a kept channel, all filters alike, by least squares, and the bias that keeps the mean.

    W' = W_S * w with w of `channel_scalars` on the Gram matrix of Sigma. mu = 0 gives the paper's form: no intercept.
    W: (n, C, k); b: (n,); A: (C*k, C*k); mu: (C*k,); kept: (K,). Source: ThiNet (Luo et al. 2017), section 3.3.
    """
    W = np.asarray(W, np.float64)
    w = channel_scalars(channel_gram(W, covariance(A, mu)), kept, ridge)
    return _with_mean(W, b, mu, kept, W[:, kept] * w[:, None])


def refit_full(W: Array, b: Array, A: Array, mu: Array, kept: Array, ridge: float = 1e-3) -> Refit:
    """Every kept weight by least squares, with a ridge centred on the original weights, and the bias.

    W' = argmin tr((W - W') Sigma (W - W')^T) + lam |W' - W_S|^2, W'_T = 0, lam = ridge * mean(diag Sigma): solved as
    W' = W_S + W_T Sigma_TS (Sigma_SS + lam I)^-1, so that keeping everything changes nothing; b' = b + W mu - W' mu_S.
    W: (n, C, k); b: (n,); A: (C*k, C*k); mu: (C*k,); kept: (K,). O((K k)^3 / 3). The weights of `joint_obs` at the same
    ridge. Source: He et al. 2017, section 3.2; the ridge as in OSSCAR (Meng et al. 2024).
    """
    n, C, k = W.shape
    S, T = columns(kept, k), columns(np.setdiff1d(np.arange(C), kept), k)
    flat = np.asarray(W, np.float64).reshape(n, C * k)
    Sigma = covariance(A, mu)
    lost = flat[:, T] @ Sigma[np.ix_(T, S)]
    correction = solve(Sigma[np.ix_(S, S)], lost.T, damping(Sigma.diagonal(), ridge)).T
    return _with_mean(np.asarray(W, np.float64), b, mu, kept, (flat[:, S] + correction).reshape(n, len(kept), k))


def _with_mean(W: Array, b: Array, mu: Array, kept: Array, weight: Array) -> Refit:
    """With the bias that leaves the mean of every filter's output where it was: b' = b + (W - W') mu."""
    lost = W.copy()
    lost[:, kept] -= weight
    return Refit(weight, b + np.tensordot(lost, np.reshape(mu, W.shape[1:]), 2))
