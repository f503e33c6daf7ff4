"""Structured optimal brain surgeon: remove, one at a time, the channel whose loss a refit repairs best.

With H = S + lam I, Hi = H_LL^-1 over the live channels L and W refitted on them, losing channel c costs exactly
tr(W_c (Hi_cc)^-1 W_c^T) more, and the refit is W -= W_c (Hi_cc)^-1 Hi_c:, Hi -= Hi_:c (Hi_cc)^-1 Hi_c:.
One run gives the nested order and the exact error curve for every ratio.
Source: Hassibi and Stork 1993; groups of columns: Kurtic et al. 2023 (ZipLM).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .gram import diagonal_blocks
from .positive_definite import compact, damping, inverse
from .removal import Objective, Removal, columns

Array = np.ndarray

# Channels removed between two restarts: a share of the live ones, and at least a few. 4 and 8 measure the same.
_SHARE = 8
_FEWEST = 8


def obs_elimination(W: Array, S: Array, ridge: float = 1e-3) -> Removal:
    """`joint_obs` for one consumer; the harm is its error tr((W - W') H (W - W')^T), H = S + ridge * mean(diag S) I.

    W: (n, C, k); S: (C*k, C*k). With W = ones (1, C, 1) and S a channel Gram matrix it is the elimination with
    channel-wise scalars.
    """
    return joint_obs([Objective(W, S)], ridge)


def joint_obs(objectives: Sequence[Objective], ridge: float = 1e-3, candidates: Array | None = None) -> Removal:
    """Greedy removal of channels that several consumers read; the error is the weighted sum of theirs, each refitted.

    candidates: the channels that may go, all by default; the order holds them alone, the others are refitted too.
    ridge is relative to each mean diagonal and must be positive where a moment is singular. Equal channels go by index.
    O((C k)^3) for each consumer. Raises numpy.linalg.LinAlgError where a moment is not finite.
    """
    C = objectives[0].W.shape[1]
    eligible = np.zeros(C, bool)
    eligible[slice(None) if candidates is None else candidates] = True
    fits = [_Fit(objective, ridge) for objective in objectives if objective.weight > 0]
    live = np.arange(C)
    order: list[int] = []
    costs: list[float] = []
    while eligible.any():
        barred = np.where(eligible[live], 0.0, np.inf)
        rounds = min(max(_FEWEST, len(live) // _SHARE), int(eligible.sum()))
        for fit in fits:
            fit.restart(live, rounds)
        for _ in range(rounds):
            scores = barred + sum(fit.scores() for fit in fits)
            at = int(scores.argmin())
            order.append(int(live[at]))
            costs.append(max(float(scores[at]), 0.0))
            barred[at] = np.inf
            for fit in fits:
                fit.remove(at)
        eligible[order] = False
        live = np.setdiff1d(live, order)
    return Removal(np.array(order, np.int64), np.cumsum(costs, dtype=np.float64))


class _Fit:
    """One consumer's weights, refitted as channels go.

    Between restarts Hi and W stay as they were and removals collect in P and Q: now the inverse is Hi - P P^T and the
    weights are W - Q^T P^T, of which only the diagonal blocks of the one and of the other's square are kept up to date.
    So a removal touches m * k numbers of Hi, not m^2.
    """

    def __init__(self, objective: Objective, ridge: float) -> None:
        W, self.S, self.weight = objective
        n, C, self.k = W.shape
        self.original = compact(np.asarray(W, np.float64).reshape(n, C * self.k))
        self.damping = damping(self.S.diagonal(), ridge)
        self.live, self.exact = np.arange(C), 2 * C + 1

    def restart(self, live: Array, rounds: int) -> None:
        """Go on with the channels `live`, a subset of those before, and room for `rounds` removals among them."""
        k = self.k
        if 2 * len(live) < self.exact:  # so that rounding does not pile up, at 1/7 of the first inversion's cost
            self._refactor(live)
        else:
            rows = columns(np.searchsorted(self.live, live), k)
            P = self.P[rows, : self.rank]
            self.Hi = self.Hi[np.ix_(rows, rows)]
            self.Hi -= P @ P.T
            self.W = self.W[:, rows] - self.Q[: self.rank].T @ P.T
        self.live = live
        self.P = np.empty((len(live) * k, rounds * k))
        self.Q = np.empty((rounds * k, len(self.W)))
        self.rank = 0
        self.blocks = diagonal_blocks(self.Hi, k)
        by_channel = self.W.reshape(-1, len(live), k).transpose(1, 2, 0)
        self.squares = by_channel @ by_channel.transpose(0, 2, 1)  # W_c^T W_c

    def _refactor(self, live: Array) -> None:
        kept = columns(live, self.k)
        gone = np.setdiff1d(np.arange(self.original.shape[1]), kept)
        self.Hi = inverse(self.S[np.ix_(kept, kept)], self.damping)
        lost = self.original[:, gone] @ self.S[np.ix_(gone, kept)]
        self.W = self.original[:, kept] + lost @ self.Hi
        self.exact = len(live)

    def scores(self) -> Array:
        """For every position weight * tr(W_c (Hi_cc)^-1 W_c^T), (L,) float64; of removed ones meaningless."""
        if self.k == 1:
            return self.weight * (self.squares / self.blocks)[:, 0, 0]
        return self.weight * np.trace(np.linalg.solve(self.blocks, self.squares), axis1=1, axis2=2)

    def remove(self, at: int) -> None:
        """Take out the channel at a position in `live`: Hi_cc = L L^T, P gains Hi_:c L^-T and Q gains L^-1 W_c^T."""
        k, rank = self.k, self.rank
        own = slice(at * k, (at + 1) * k)
        P, Q = self.P[:, :rank], self.Q[:rank]
        root = np.linalg.inv(np.linalg.cholesky(self.blocks[at]))  # L^-1
        q = root @ (self.W[:, own] - Q.T @ P[own].T).T
        past = P @ np.hstack([P[own].T, Q @ q.T])
        p = (self.Hi[:, own] - past[:, :k]) @ root.T
        change = p.reshape(-1, k, k)
        cross = change @ ((q @ self.W).T - past[:, k:]).reshape(-1, k, k).transpose(0, 2, 1)
        self.squares += change @ (q @ q.T) @ change.transpose(0, 2, 1) - cross - cross.transpose(0, 2, 1)
        self.blocks -= change @ change.transpose(0, 2, 1)
        self.blocks[at] = np.eye(k)
        self.P[:, rank : rank + k], self.Q[rank : rank + k] = p, q
        self.rank += k
