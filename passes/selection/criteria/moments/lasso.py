"""LASSO. He, Zhang, Sun, Channel pruning for accelerating very deep neural networks, ICCV 2017, equation 4."""

from __future__ import annotations

from dataclasses import dataclass

from ....algebra.lasso import lasso_path
from ....algebra.removal import Objective, Removal
from ._of_consumers import OfConsumers, unit_gram


@dataclass(frozen=True, slots=True)
class Lasso(OfConsumers):
    """min 1/2 b^T G b - b^T G 1 + lambda |b|_1: units go in the order in which their b dies as lambda grows."""

    def _remove(self, objectives: list[Objective], units: int) -> Removal:
        return lasso_path(unit_gram(objectives, units))
