"""Average percentage of zeros. Hu et al., Network trimming, 2016, equation 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....algebra.moments import ActivationStatistics
from ....channels.groups import ChannelGroup
from ....errors import UsageError
from ....needs import Need, met
from ...ranking import Evidence, Ranking
from ..moments._consumers import activations
from ..weights.l2 import L2


class OfActivations(ABC):
    """Scores a unit by a statistic of the activations that are read; calibration has to take those statistics.

    One whose activations nothing reads linearly is ranked by its weights.
    """

    __slots__ = ()
    needs: ClassVar[frozenset[Need]] = frozenset({"moments", "activations"})

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group: the mean over the activations that are read, and over a unit's channels."""
        found = activations(group, evidence)
        known = met(evidence.moments, "moments").activations
        if found and not any(name in known for name, _ in found):
            raise UsageError(
                "the moments hold no statistics of these activations",
                where=f"--moments, '{found[0][0]}'",
                fix="calibrate for this criterion",
            )
        scores = [self._statistic(known[name])[places].mean(1) for name, places in found if name in known]
        if not scores:
            return L2().rank(group, evidence)
        return Ranking.by_score(np.maximum(np.mean(scores, axis=0), 0))

    @abstractmethod
    def _statistic(self, statistics: ActivationStatistics) -> np.ndarray:
        """(C,) float64, the harm of each channel."""


@dataclass(frozen=True, slots=True)
class Apoz(OfActivations):
    """The share of a unit's activations that are not zero, after the ReLU and before a pool; least first.

    Networks without ReLU have no zeros.
    """

    def _statistic(self, statistics: ActivationStatistics) -> np.ndarray:
        return 1 - statistics.zeros
