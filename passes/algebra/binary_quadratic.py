"""Which units to remove where the loss is a quadratic in the gates: greedy order, then exchanges of pairs.

    q(T) = -sum_{i in T} u_i + 1/2 sum_{i, j in T} S_ij

is the second-order change of the loss when the gates of T fall from 1 to 0: u its gradient, S its curvature. Picking
T of a given size is the binary quadratic problem min b^T Shat b, 1^T b = p, of Collaborative Channel Pruning, b the
gates that stay and Shat = S / 2 + diag(u - S 1) (Peng et al., ICML 2019), which differs by a constant.
"""

from __future__ import annotations

import numpy as np

from .removal import Removal

Array = np.ndarray

# An exchange must lower the loss by this share of its terms, which is above rounding.
_PROGRESS = 1e-12


def removal_loss(u: Array, S: Array, removed: Array) -> float:
    """The change q that a set of units makes. u: (C,); S: (C, C), symmetric; removed: distinct units."""
    return float(S[np.ix_(removed, removed)].sum() / 2 - u[removed].sum())


def greedy_removal(u: Array, S: Array) -> Removal:
    """Remove, one at a time, the unit that leaves q least; equal ones by index. Harm is q, which may be negative.

    The next unit adds -u_c + S_cc / 2 + (S 1_T)_c, kept up to date by one column: O(C) a step.
    """
    C = len(u)
    order, harm = np.empty(C, np.int64), np.empty(C)
    added, total = S.diagonal() / 2 - u, 0.0
    for step in range(C):
        order[step] = c = added.argmin()
        harm[step] = total = total + float(added[c])
        added += S[c]
        added[c] = np.inf
    return Removal(order, harm)


def exchange(u: Array, S: Array, removed: Array, rounds: int | None = None) -> Array:
    """A removed set of the same size, ascending, that no exchange of one removed unit for a kept one makes better.

    A round makes the best of all exchanges: taking a back and removing b changes q by
    u_a - u_b + (S_aa + S_bb) / 2 - r_a + r_b - S_ab with r = S 1_T, which two columns update. rounds: at most so many,
    by default until none helps. O(|T| (C - |T|)) a round.
    """
    gone = np.isin(np.arange(len(u)), removed)
    r, half = S[:, gone].sum(1), S.diagonal() / 2
    enough = _PROGRESS * (np.abs(u).sum() + half.sum())
    while rounds is None or rounds > 0:
        T, K = np.flatnonzero(gone), np.flatnonzero(~gone)
        if not (len(T) and len(K)):
            break
        change = (u + half - r)[T, None] + (half - u + r)[K] - S[np.ix_(T, K)]
        back, away = np.unravel_index(change.argmin(), change.shape)
        if change[back, away] >= -enough:
            break
        a, b = T[back], K[away]
        gone[a], gone[b] = False, True
        r = r + S[b] - S[a]
        rounds = None if rounds is None else rounds - 1
    return np.flatnonzero(gone)
