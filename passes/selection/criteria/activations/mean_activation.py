"""Mean activation. Molchanov et al., Pruning convolutional neural networks, ICLR 2017, section 2.2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....algebra.moments import ActivationStatistics
from .apoz import OfActivations


@dataclass(frozen=True, slots=True)
class MeanActivation(OfActivations):
    """The size of a unit's mean activation, in front of a pool; least first."""

    def _statistic(self, statistics: ActivationStatistics) -> np.ndarray:
        return np.abs(statistics.mean)
