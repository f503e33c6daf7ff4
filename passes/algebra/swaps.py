"""Local search after a greedy selection: exchange a removed channel for a kept one while the exact error falls.

All of regression stands in one symmetric table, swept on the kept set K (S stands for the moment with its ridge):

    M_KK = -S_KK^-1   M_KT = S_KK^-1 S_KT   M_TT = S_TT - S_TK S_KK^-1 S_KT   X_K = W'_K   X_T = ((W - W') S)_T

Taking channel c in or out is the same pivot D = M_cc, and changes the error by -tr(X_c D^-1 X_c^T) either way.
Source: OSSCAR (Meng et al. 2024), algorithm 1 with one exchange at a time; sweeping: Beaton 1964.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from .gram import diagonal_blocks
from .positive_definite import compact, damping, inverse
from .removal import Objective, columns

Array = np.ndarray

# An exchange must lower the error by this share of it, which is above rounding.
_PROGRESS = 1e-9


def swap_refine(
    objectives: Sequence[Objective],
    removed: Array,
    ridge: float = 1e-3,
    rounds: int = 20,
    candidates: Array | None = None,
) -> Array:
    """A removed set of the same size whose exact error with refit is not larger.

    A round removes the channel that costs least and takes back the one that gains most; it counts if the two together
    lower sum_l weight_l tr((W_l - W'_l) H_l (W_l - W'_l)^T), H_l = S_l + ridge * mean(diag S_l) I, and is the last one
    otherwise. removed: channels; candidates: those that may go, all by default; the others are refitted. Returns the
    removed ones ascending, int64. O(C^2 k^3) a round after O((C k)^3), per consumer.
    """
    C = objectives[0].W.shape[1]
    best = gone = np.isin(np.arange(C), removed)
    may_go = np.ones(C, bool) if candidates is None else np.isin(np.arange(C), candidates)
    tables = [_Table(objective, ridge, gone) for objective in objectives if objective.weight > 0]
    error = sum(table.error() for table in tables)
    for _ in range(rounds if tables and 0 < gone.sum() < may_go.sum() else 0):
        first, cost = _cheapest(tables, may_go & ~gone)
        gone = gone.copy()
        gone[first] = True
        second, change = _cheapest(tables, gone)
        gone[second] = False
        if cost + change > -_PROGRESS * error:
            break
        best, error = gone, error + cost + change
    return np.flatnonzero(best)


def _cheapest(tables: list[_Table], among: Array) -> tuple[int, float]:
    """Toggle the channel that makes the error least, of those where `among` is true: it, and the error's change."""
    changes = np.where(among, sum(table.changes() for table in tables), np.inf)
    channel = int(changes.argmin())
    for table in tables:
        table.toggle(channel)
    return channel, float(changes[channel])


class _Table:
    """The table of one consumer, swept on what is kept."""

    def __init__(self, objective: Objective, ridge: float, gone: Array) -> None:
        W, S, self.weight = objective
        n, C, self.k = W.shape
        flat = compact(np.asarray(W, np.float64).reshape(n, C * self.k))
        self.M = np.array(S, np.float64)
        self.M[np.diag_indices_from(self.M)] += damping(S.diagonal(), ridge)
        self.X = flat @ self.M
        K, T = columns(np.flatnonzero(~gone), self.k), columns(np.flatnonzero(gone), self.k)
        Hi = inverse(self.M[np.ix_(K, K)])
        B = Hi @ self.M[np.ix_(K, T)]
        self.M[np.ix_(T, T)] -= self.M[np.ix_(T, K)] @ B
        self.M[np.ix_(K, T)], self.M[np.ix_(T, K)], self.M[np.ix_(K, K)] = B, B.T, -Hi
        self.X[:, K] = flat[:, K] + flat[:, T] @ B.T
        self.X[:, T] = flat[:, T] @ self.M[np.ix_(T, T)]
        self.start = self.weight * float(np.sum(self.X[:, T] * flat[:, T]))

    def error(self) -> float:
        """The consumer's weighted error with the channels that were gone at the start."""
        return self.start

    def changes(self) -> Array:
        """By how much toggling each channel changes the weighted error, (C,) float64: above 0 for the kept ones."""
        by_channel = self.X.reshape(len(self.X), -1, self.k).transpose(1, 2, 0)
        D = diagonal_blocks(self.M, self.k)
        return -self.weight * np.trace(np.linalg.solve(D, by_channel @ by_channel.transpose(0, 2, 1)), axis1=1, axis2=2)

    def toggle(self, channel: int) -> None:
        """Sweep on a channel, in either direction: they differ in the sign of its own row, which no score sees."""
        c = columns(np.array([channel]), self.k)
        pivot = lu_factor(self.M[np.ix_(c, c)], check_finite=False)
        row = lu_solve(pivot, self.M[c], check_finite=False)
        own = lu_solve(pivot, self.X[:, c].T, check_finite=False).T
        self.X -= self.X[:, c] @ row
        self.M -= self.M[:, c] @ row
        self.X[:, c], self.M[c], self.M[:, c] = own, row, row.T
        self.M[np.ix_(c, c)] = -lu_solve(pivot, np.eye(self.k), check_finite=False)
