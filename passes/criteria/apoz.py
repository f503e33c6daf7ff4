"""Average percentage of zeros. Hu et al., Network trimming, 2016, equation 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..channel_groups import ChannelGroup
from ..errors import UsageError
from ..moments import ActivationStatistics
from ..ranking import Evidence, Ranking
from ._readers import tensors
from .l2 import L2


@dataclass(frozen=True, slots=True)
class Apoz:
    """A unit's score is the share of its activations, where they are read, that are not zero; least first.

    Networks without ReLU have no zeros: there it says nothing. statistics: it needs those of activations.
    """

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group."""
        scores = activation_scores(group, evidence, lambda s: 1 - s.zeros)
        return L2().rank(group, evidence) if scores is None else Ranking.by_score(scores)


def activation_scores(
    group: ChannelGroup, evidence: Evidence, statistic: Callable[[ActivationStatistics], np.ndarray]
) -> np.ndarray | None:
    """The mean over the tensors that read the group, and over a unit's channels, of a statistic; None where none is."""
    found = tensors(group, evidence)
    assert evidence.moments is not None
    known = evidence.moments.activations
    if found and not known:
        raise UsageError(
            "the moments hold no statistics of activations", where="--moments", fix="calibrate for this criterion"
        )
    scores = [statistic(known[name])[places].mean(1) for name, places in found if name in known]
    return np.maximum(np.mean(scores, axis=0), 0) if scores else None
