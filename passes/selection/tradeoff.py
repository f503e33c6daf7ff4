"""Allocation by error: the least sum of the groups' harms under the budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ..channels.cost import CostModel

Array = np.ndarray


def convex_slopes(harm: Array) -> Array:
    """Slopes of the lower convex hull of (0, 0), (1, harm[0]), ..., one a unit, not decreasing.

    Only widths on the hull can be part of a least sum of harms under a linear budget.
    """
    points = np.concatenate([[0.0], np.maximum.accumulate(harm)])
    hull = [0]
    for i in range(1, len(points)):
        while len(hull) > 1 and _slope(points, hull[-2], hull[-1]) >= _slope(points, hull[-2], i):
            hull.pop()
        hull.append(i)
    slopes = np.empty(len(harm))
    for start, end in itertools.pairwise(hull):
        slopes[start:end] = _slope(points, start, end)
    return slopes


def _slope(points: Array, start: int, end: int) -> float:
    return float((points[end] - points[start]) / (end - start))


def savings(cost: CostModel, kind: str) -> Array:
    """What one unit of each group costs in the whole network, in the budget's kind; (groups,) float64, 0 if pinned."""
    measures: dict[str, Callable[[Array], int]] = {"macs": cost.macs, "params": cost.params, "size": cost.size}
    if kind not in measures:  # a budget of channels counts units
        return cost.free.astype(np.float64)
    measure = measures[kind]
    whole, one = measure(cost.units), np.eye(len(cost.units), dtype=np.int64)
    saved = [whole - measure(cost.units - row) if free else 0 for row, free in zip(one, cost.free, strict=True)]
    return np.array(saved, np.float64)
