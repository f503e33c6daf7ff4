"""A random order: what every criterion has to beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....channels.groups import ChannelGroup
from ....needs import Need
from ...ranking import Evidence, Ranking


@dataclass(frozen=True, slots=True)
class Random:
    """Any unit is as good as any other. The order depends on the seed and the group's name alone."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Harm is the number of units that are gone."""
        generator = np.random.default_rng([evidence.seed, zlib.crc32(group.name.encode())])
        return Ranking(generator.permutation(group.units), np.arange(1.0, group.units + 1))
