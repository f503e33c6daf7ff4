"""Filters near the geometric median. He et al., Filter pruning via geometric median, CVPR 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....channels.groups import ChannelGroup
from ....needs import Need
from ...ranking import Evidence, Ranking
from ._magnitude import making, slices

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Fpgm:
    """What others can replace goes first: s_i = sum_j ||w_i - w_j||_2, summed over the weights that make the unit."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Harm is the sum of the distances of what is gone."""
        scores = [_distances(slices(group, key, evidence.weight(key))) for key in making(group)]
        return Ranking.by_score(np.sum(scores, axis=0))


def _distances(rows: Array) -> Array:
    """sum_j ||x_i - x_j||_2 of rows x (units, n), by way of ||x||^2 + ||y||^2 - 2 <x, y>."""
    square = np.sum(rows**2, axis=1)
    squares = square[:, None] + square - 2 * (rows @ rows.T)
    np.fill_diagonal(squares, 0)
    return np.sqrt(np.maximum(squares, 0)).sum(axis=1)
