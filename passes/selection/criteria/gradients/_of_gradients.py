"""Base of the criteria that see a group through the gradients of the loss by its units' gates, sample by sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....channels.groups import ChannelGroup
from ....needs import Need, met
from ...ranking import Evidence, Ranking
from ..weights.l2 import L2

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class OfGradients(ABC):
    """Ranks by U, (samples, units): U[n, i] = d loss_n / d gate_i, the gate being a factor 1 on all that reads unit i.

    labels: the loss is the cross-entropy with the data's labels, where they have any; else, or if it is False, it is
    the distance from the model's own outputs (see runtime/torch/gates/loss.py). Harms are in units of that loss, so
    that those of different groups can be compared. A group that no gate reaches is ranked by its weights.
    """

    labels: bool = True
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    @property
    def auxiliary(self) -> int:
        """How many classifiers at intermediate depths add losses, whose gradients are further rows of U."""
        return 0

    @property
    def tuned(self) -> bool:
        """Whether these classifiers are trained together with the network before gradients are taken."""
        return False

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group."""
        U = gradients(group, evidence)
        return L2().rank(group, evidence) if U is None else self._rank(U)

    @abstractmethod
    def _rank(self, U: Array) -> Ranking: ...


def gradients(group: ChannelGroup, evidence: Evidence) -> Array | None:
    """(samples, units) float64 of a group, None where it has no gate. Raises UsageError where nothing was measured."""
    return met(evidence.gradients, "gradients").get(group.name)


def by_loss(scores: Array) -> Ranking:
    """Smallest score first, scores in units of the loss."""
    ranking = Ranking.by_score(scores)
    return Ranking(ranking.order, ranking.harm, comparable=True)
