"""Ties solved: the connected component of each label, and why components must stay."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Array = np.ndarray


def components(count: int, ties: list[tuple[Array, Array]]) -> Array:
    """The connected component of each of `count` labels under the ties."""
    if not ties:
        return np.arange(count)
    first = np.concatenate([t[0] for t in ties])
    second = np.concatenate([t[1] for t in ties])
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def pin_reasons(component: Array, pins: list[tuple[Array, str]]) -> dict[int, str]:
    """Component -> the first reason why it must stay."""
    reasons: dict[int, str] = {}
    for labels, reason in pins:
        for c in np.unique(component[labels]).tolist():
            reasons.setdefault(c, reason)
    return reasons
