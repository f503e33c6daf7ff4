"""Fluctuation. An et al., Fluctuation-based adaptive structured pruning (FLAP), AAAI 2024."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....algebra.gram import fluctuation_scores
from ....algebra.removal import Objective, Removal
from ...ranking import Ranking
from ._of_consumers import OfConsumers


@dataclass(frozen=True, slots=True)
class Fluctuation(OfConsumers):
    """s_c = sum_j w_jc Sigma_cc w_jc^T: the variance that goes with the unit once the bias has taken over its mean."""

    def _remove(self, objectives: list[Objective], units: int) -> Removal:
        scores = sum((o.weight * fluctuation_scores(o.W, o.S)[:units] for o in objectives), start=np.zeros(units))
        ranking = Ranking.by_score(np.maximum(scores, 0))
        return Removal(ranking.order, ranking.harm)
