"""Allocation by error: the least sum of the groups' harms under the budget."""

from __future__ import annotations

import itertools

import numpy as np

from .cost import CostModel

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


def savings(cost: CostModel, measure: str) -> Array:
    """What one unit of each group costs in the whole network, in MACs, parameters or bytes; (groups,) float64."""
    function = {"macs": cost.macs, "params": cost.params, "size": cost.size}.get(measure, cost.channels)
    whole = function(cost.units)
    one = np.eye(len(cost.units), dtype=np.int64)
    return np.array(
        [whole - function(cost.units - row) if f else 0 for row, f in zip(one, cost.free, strict=True)], float
    )
