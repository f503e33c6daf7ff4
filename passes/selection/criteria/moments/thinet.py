"""ThiNet. Luo, Wu, Lin, ThiNet: a filter level pruning method, ICCV 2017, equation 6 and algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass

from ....algebra.greedy import thinet_greedy
from ....algebra.removal import Objective, Removal
from ._of_consumers import OfConsumers, unit_gram


@dataclass(frozen=True, slots=True)
class Thinet(OfConsumers):
    """Greedily grow the set T that goes, so that 1_T^T G 1_T, what the next layer loses without it, stays least.

    centred: on covariances, since a new bias takes over the means; False is the paper's second moment.
    """

    centred: bool = True

    def _centred(self) -> bool:
        return self.centred

    def _remove(self, objectives: list[Objective], units: int) -> Removal:
        return thinet_greedy(unit_gram(objectives, units))
