"""Structured optimal brain surgeon with refit. Hassibi, Stork 1993; Kurtic et al., ZipLM, NeurIPS 2023."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....algebra.elimination import joint_obs
from ....algebra.removal import Objective, Removal
from ....algebra.swaps import swap_refine
from ....channels.groups import ChannelGroup
from ...ranking import Evidence
from ._consumers import group_objectives
from ._of_consumers import OfConsumers


@dataclass(frozen=True, slots=True)
class Obs(OfConsumers):
    """Remove the unit whose loss the consumers' remaining weights can best make up for, refit, repeat.

    The harm is the exact relative error of the consumers after a full least-squares refit.

    ridge: relative to the mean diagonal of the covariance
    swaps: once it is known how many go, as many exchanges of a removed unit for a kept one are made at most, while they
        lower that error (see `swaps.swap_refine`)
    """

    ridge: float = 1e-3
    swaps: int = 0

    def refine(self, group: ChannelGroup, evidence: Evidence, removed: np.ndarray) -> np.ndarray:
        """As many units as `removed`, with at most its error."""
        objectives = group_objectives(group, evidence, centred=self._centred()) if self.swaps else []
        if not objectives:
            return removed
        return swap_refine(objectives, removed, self.ridge, self.swaps, np.arange(group.units))

    def _remove(self, objectives: list[Objective], units: int) -> Removal:
        return joint_obs(objectives, self.ridge, np.arange(units))
