"""Base of the criteria that see a group through the Gram matrix of its units' contributions to their consumers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from ....algebra.gram import channel_gram
from ....algebra.removal import Objective, Removal
from ....channels.groups import ChannelGroup
from ....needs import Need
from ...ranking import Evidence, Ranking
from ..weights._magnitude import making
from ..weights.l2 import L2
from ._consumers import group_objectives

Array = np.ndarray


class OfConsumers(ABC):
    """Ranks a group by its consumers; one that nothing reads linearly (attention's keys) is ranked by its weights."""

    __slots__ = ()
    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group."""
        objectives = group_objectives(group, evidence, centred=self._centred())
        if not objectives:
            return Ranking.by_score(_norms(group, evidence))
        removal = self._remove(objectives, group.units)
        return Ranking(removal.order, np.maximum.accumulate(np.maximum(removal.harm, 0)))

    def _centred(self) -> bool:
        return True

    @abstractmethod
    def _remove(self, objectives: list[Objective], units: int) -> Removal: ...


def _norms(group: ChannelGroup, evidence: Evidence) -> Array:
    """(units,) the sum of the norms of the filters that make each unit, as they count behind BatchNormalization."""
    layers = {consumer.weight.name: consumer for consumer in evidence.consumers}
    found = np.zeros(group.units)
    for key in making(group):
        layer = layers.get(key.constant)
        if layer is None or layer.layout.out != key.axis:
            found = found + L2().norms(group, key, evidence)
        else:
            squares = np.square(evidence.matrix(layer)).sum((1, 2))
            found = found + np.sqrt(squares[group.slices[key]].sum(1))
    return found


def unit_gram(objectives: list[Objective], units: int) -> Array:
    """Sum over the consumers of the relative Gram matrix of the units' contributions, (units, units)."""
    return sum(
        (objective.weight * channel_gram(objective.W, objective.S)[:units, :units] for objective in objectives),
        start=np.zeros((units, units)),
    )
