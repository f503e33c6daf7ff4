"""Base of the criteria that see a group through the Gram matrix of its units' contributions to their readers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ....algebra.gram import channel_gram
from ....algebra.removal import Consumer, Removal
from ....channels.groups import ChannelGroup
from ...ranking import Evidence, Ranking
from ..weights.l2 import L2
from ._consumers import readers

Array = np.ndarray


class OfReaders(ABC):
    """Ranks by the readers of a group; one that nothing reads linearly (attention's keys) is ranked by its weights."""

    __slots__ = ()

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group."""
        found = readers(group, evidence, centred=self._centred())
        if not found:
            return L2().rank(group, evidence)
        removal = self._remove(found, group.units)
        return Ranking(removal.order, np.maximum.accumulate(np.maximum(removal.harm, 0)))

    def _centred(self) -> bool:
        return True

    @abstractmethod
    def _remove(self, found: list[Consumer], units: int) -> Removal: ...


def unit_gram(found: list[Consumer], units: int) -> Array:
    """Sum over the readers of the relative Gram matrix of the units' contributions, (units, units)."""
    return sum(
        (consumer.weight * channel_gram(consumer.W, consumer.S)[:units, :units] for consumer in found),
        start=np.zeros((units, units)),
    )
