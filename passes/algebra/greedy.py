"""ThiNet's two greedy selections, on the channel Gram matrix instead of sampled rows.

With rows x_i (C,) of sampled contributions and G = sum_i x_i x_i^T they pick what the papers' loops pick on those rows
(tests/passes/algebra/test_greedy.py); with G of `channel_gram` they see every filter and every sampled position at
once.
"""

from __future__ import annotations

import numpy as np

from .positive_definite import damping, solve
from .removal import Removal, drop_harm, rescale_harm

Array = np.ndarray

# Below this share of the energy that there was, what is left to explain is rounding.
_NOTHING = 1e-13
# A scalar beyond this says that the fit went wrong, not that the channel matters (Kwon et al. 2022).
_WILD = 10.0


def thinet_greedy(G: Array) -> Removal:
    """Remove, one at a time, the channel whose loss keeps the error smallest: argmin_c 1_{T+c}^T G 1_{T+c}.

    The error grows by G_cc + 2 r_c with r = G 1_T, which one column updates: O(C) a step, O(C^2) for the whole order.
    Equal channels go by index. The harm is the error without any refit.
    G: (C, C) symmetric, >= 0. Source: ThiNet (Luo et al. 2017), algorithm 1.
    """
    C = len(G)
    order = np.empty(C, np.int64)
    growth = np.array(G.diagonal(), np.float64)
    for step in range(C):
        order[step] = c = growth.argmin()
        growth += 2 * G[c]
        growth[c] = np.inf
    return Removal(order, drop_harm(G, order))


def thinet_omp(G: Array) -> Removal:
    """Keep, one at a time, what explains most of the output that the kept ones, rescaled, leave: orthogonal matching.

    With q = G 1 and w = G_SS^-1 q_S the next is argmax_c (q - G_:S w)_c^2 / G_cc. Gram-Schmidt on the columns of G
    keeps the residual correlations, O(C |S|) a step. Once nothing is left to explain (dead and duplicated channels),
    the channels of most energy come first. The order is the reverse of the selection; the harm is the error with the
    best scalars. G: (C, C) symmetric, >= 0. Source: ThiNet (Luo et al., TPAMI 2018), algorithm 1.
    """
    C = len(G)
    chosen = np.empty(C, np.int64)
    energy = np.array(G.diagonal(), np.float64)
    share = np.divide(1, energy, out=np.zeros(C), where=energy > _NOTHING * energy.max(initial=0))
    basis = np.empty((C, C))  # row m: inner products of every channel with the m-th orthonormal direction
    residual = G.sum(1)
    exhausted = _NOTHING * residual.sum()
    for step in range(C):
        score = residual**2 * share
        c = score.argmax()
        if score[c] <= exhausted:
            left = np.setdiff1d(np.arange(C), chosen[:step])
            chosen[step:] = left[np.argsort(-energy[left], kind="stable")]
            break
        chosen[step] = c
        direction = G[c] - basis[:step, c] @ basis[:step]
        direction /= np.sqrt(direction[c])
        basis[step] = direction
        residual -= residual[c] / direction[c] * direction
        share[c] = 0
    order = chosen[::-1].copy()
    return Removal(order, rescale_harm(G, order))


def channel_scalars(G: Array, kept: Array, ridge: float) -> Array:
    """The best scalar for each kept channel, with a ridge centred at 1: (G_SS + lam I) w = (G 1)_S + lam 1.

    lam = ridge * mean(diag G). Where a scalar comes out beyond 10 in size, all stay 1.
    G: (C, C); kept: (K,) channels. Returns (K,) float64.
    Source: ThiNet (Luo et al. 2017), eq. 7; the two guards: Kwon et al. 2022, mask tuning.
    """
    S = G[np.ix_(kept, kept)]
    w = 1 + solve(S, G[kept].sum(1) - S.sum(1), damping(G.diagonal(), ridge))
    return w if np.abs(w).max(initial=0) <= _WILD else np.ones(len(kept))
