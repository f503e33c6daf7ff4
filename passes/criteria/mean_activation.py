"""Mean activation. Molchanov et al., Pruning convolutional neural networks, ICLR 2017, section 2.2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..channel_groups import ChannelGroup
from ..ranking import Evidence, Ranking
from .apoz import activation_scores
from .l2 import L2


@dataclass(frozen=True, slots=True)
class MeanActivation:
    """A unit's score is the size of its mean activation where it is read; least first."""

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group."""
        scores = activation_scores(group, evidence, lambda s: np.abs(s.mean))
        return L2().rank(group, evidence) if scores is None else Ranking.by_score(scores)
