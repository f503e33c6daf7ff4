"""ThiNet of the journal. Luo et al., ThiNet: pruning CNN filters for a thinner net, TPAMI 2018."""

from __future__ import annotations

from dataclasses import dataclass

from ....algebra.greedy import thinet_omp
from ....algebra.removal import Objective, Removal
from ._of_consumers import OfConsumers, unit_gram


@dataclass(frozen=True, slots=True)
class ThinetOmp(OfConsumers):
    """Orthogonal matching pursuit: the units that stay are chosen one by one, each with the best scalars so far."""

    def _remove(self, objectives: list[Objective], units: int) -> Removal:
        return thinet_omp(unit_gram(objectives, units))
