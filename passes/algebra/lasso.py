"""Channel Pruning's LASSO (He et al. 2017) on the channel Gram matrix: the whole path, exactly.

min over b of 1/2 b^T G b - b^T G 1 + lam |b|_1 is the paper's problem (its eq. 2, first step) with Z_i = X_i W_i^T: the
samples enter through G alone. Between two events, a coefficient that becomes or ceases to be non-zero, b is linear in
lam, so following the events from lam = max |G 1| (all zero) down to 0 (all one) gives every solution there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .positive_definite import damping
from .removal import Removal, rescale_harm

Array = np.ndarray

# Relative to the mean diagonal. Makes the path unique on duplicated channels, of which the later one comes first.
_RIDGE = 1e-6
# For each channel, on average; a path has two or three.
_EVENTS = 30


class Lasso(NamedTuple):
    """One solution. kept: (K,) int64, ascending; coefficients: (K,) float64, theirs; penalty: its lam."""

    kept: Array
    coefficients: Array
    penalty: float


def lasso_path(G: Array) -> Removal:
    """Channels in the order in which lam, growing from 0, silences them for good; harm with the best scalars.

    The solutions of the path are not nested: a coefficient may vanish and come back. The order is by the largest lam
    at which a channel is still there. G: (C, C) symmetric, >= 0. O(C^2) an event.
    """
    entered: dict[int, None] = {}
    for _, b in _segments(G):
        entered.update(dict.fromkeys(np.flatnonzero(b).tolist()))
    order = np.array(list(entered)[::-1], np.int64)
    return Removal(order, rescale_harm(G, order))


def lasso_select(G: Array, keep: int) -> Lasso:
    """A solution with exactly `keep` non-zero coefficients: the first on the way from all zero, at its least penalty.

    The paper bisects lam and takes up to 10 % more than asked; events change the count by one, so the path meets every
    count. G: (C, C) symmetric, >= 0; 0 <= keep <= C. Raises ValueError for another `keep`.
    """
    for penalty, b in _segments(G):
        kept = np.flatnonzero(b)
        if len(kept) == keep:
            return Lasso(kept, b[kept], penalty)
    raise ValueError(f"cannot keep {keep} of {len(G)} channels")


def lasso_choice(G: Array, q: Array, keep: int) -> Array:
    """(keep,) int64: the channels that stay in min over b of 1/2 b^T G b - b^T q + lam |b|_1 at the least such lam.

    q: (C,) float64, of each channel's contribution with the target; G 1 where the target is the sum of all. Where the
    path has no solution of that many, those that enter first.
    """
    entered: dict[int, None] = {}
    for _, b in _segments(G, q):
        kept = np.flatnonzero(b)
        if len(kept) == keep:
            return kept
        entered.update(dict.fromkeys(kept.tolist()))
    rest = [c for c in np.argsort(-np.abs(q), kind="stable").tolist() if c not in entered]
    return np.sort(np.array([*entered, *rest][:keep], np.int64))


def _segments(G: Array, target: Array | None = None) -> Iterator[tuple[float, Array]]:
    """Each linear piece of the path, by its lower end: lam there, and b (C,), non-zero where the piece is.

    On a piece with active channels A and signs s, b_A = u - lam v with u = G_AA^-1 q_A, v = G_AA^-1 s_A.
    """
    C = len(G)
    if not C:
        return
    extra = damping(G.diagonal(), _RIDGE) * (1 + np.arange(C) / C)
    H = G + np.diag(extra)
    q = H.sum(1) if target is None else target + extra  # the ridge is centred at 1
    K = np.zeros((C, C))  # H_AA^-1 in its rows and columns, zero elsewhere
    signs = np.zeros(C)
    penalty = float(np.abs(q).max())
    for _ in range(_EVENTS * C):
        active = signs != 0
        known = np.stack([np.where(active, q, 0.0), signs], 1)
        solved = K @ known
        solved += K @ (known - (H @ solved) * active[:, None])  # once more on the residual: H_AA may be near singular
        u, v = solved.T
        product = H @ solved
        event, channel, sign = _next_event(signs, u, v, q - product[:, 0], product[:, 1])
        penalty = min(max(event, 0.0), penalty)
        # a coefficient that vanishes at this end belongs to the piece: it keeps its sign
        yield penalty, signs * np.maximum(signs * (u - penalty * v), np.finfo(float).tiny)
        if event <= 0:
            return
        _toggle(K, H, channel, enters=bool(sign))
        signs[channel] = sign
    raise np.linalg.LinAlgError("the path of the LASSO goes in circles: the matrix is not positive semidefinite")


def _next_event(signs: Array, u: Array, v: Array, p: Array, a: Array) -> tuple[float, int, float]:
    """The largest lam at which the piece ends, the channel that ends it, and the sign it gets (0: it leaves).

    Outside A the correlation with the residual is p + lam a; a channel enters where it reaches lam or -lam from inside.
    """
    events = np.full((3, len(u)), -np.inf)
    outside = signs == 0
    for row, sign in ((1, 1.0), (2, -1.0)):
        np.divide(sign * p, 1 - sign * a, out=events[row], where=outside & (sign * a < 1))
    np.divide(u, v, out=events[0], where=signs * v < 0)
    row, channel = np.unravel_index(events.argmax(), events.shape)
    return float(events[row, channel]), int(channel), (0.0, 1.0, -1.0)[row]


def _toggle(K: Array, H: Array, c: int, *, enters: bool) -> None:
    """Border the inverse K with channel c, or take it out, in place."""
    if enters:
        g = K @ H[c]
        pivot = max(H[c, c] - float(H[c] @ g), np.finfo(float).eps * H[c, c])
        g[c] = -1
        K += np.multiply.outer(g / pivot, g)
    else:
        K -= np.multiply.outer(K[c] / K[c, c], K[c])
        K[c] = K[:, c] = 0
