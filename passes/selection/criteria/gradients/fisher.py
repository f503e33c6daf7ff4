"""Fisher information of a unit's gate. Theis et al. 2018; Wang et al., EigenDamage, ICML 2019 (OBD on channels)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ranking import Ranking
from ._of_gradients import OfGradients, by_loss

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Fisher(OfGradients):
    """The loss that a unit's removal adds, to second order, with the Fisher information for the curvature.

    harm_i = 1/2 mean_n U[n, i]^2: the diagonal of what `ccp` takes whole.
    """

    def _rank(self, U: Array) -> Ranking:
        return by_loss(np.square(U).mean(0) / 2)
