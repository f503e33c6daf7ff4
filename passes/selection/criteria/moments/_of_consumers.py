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
            return L2().rank(group, evidence)
        removal = self._remove(objectives, group.units)
        return Ranking(removal.order, np.maximum.accumulate(np.maximum(removal.harm, 0)))

    def _centred(self) -> bool:
        return True

    @abstractmethod
    def _remove(self, objectives: list[Objective], units: int) -> Removal: ...


def unit_gram(objectives: list[Objective], units: int) -> Array:
    """Sum over the consumers of the relative Gram matrix of the units' contributions, (units, units)."""
    return sum(
        (objective.weight * channel_gram(objective.W, objective.S)[:units, :units] for objective in objectives),
        start=np.zeros((units, units)),
    )
