"""Fluctuation. An et al., Fluctuation-based adaptive structured pruning (FLAP), AAAI 2024."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....algebra.gram import fluctuation_scores
from ....algebra.removal import Consumer, Removal
from ...ranking import Ranking
from ._of_consumers import OfReaders


@dataclass(frozen=True, slots=True)
class Fluctuation(OfReaders):
    """s_c = sum_j w_jc Sigma_cc w_jc^T: the variance that goes with the unit once the bias has taken over its mean."""

    def _remove(self, found: list[Consumer], units: int) -> Removal:
        scores = sum((c.weight * fluctuation_scores(c.W, c.S)[:units] for c in found), start=np.zeros(units))
        ranking = Ranking.by_score(np.maximum(scores, 0))
        return Removal(ranking.order, ranking.harm)
