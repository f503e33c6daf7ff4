"""Structured optimal brain surgeon with refit. Hassibi, Stork 1993; Kurtic et al., ZipLM, NeurIPS 2023."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....algebra.elimination import joint_obs
from ....algebra.gram import channel_gram
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
    widest: inputs of a consumer, channels times kernel positions, up to which all of its weights are refitted, in
        O(inputs^3); of wider ones each channel gets one scalar. Three layers of 512 channels and 3 x 3 (ResNet-50) took
        two thirds of the time of all 32
    """

    ridge: float = 1e-3
    swaps: int = 0
    widest: int = 1152

    def refine(self, group: ChannelGroup, evidence: Evidence, removed: np.ndarray) -> np.ndarray:
        """As many units as `removed`, with at most its error."""
        objectives = group_objectives(group, evidence, centred=self._centred()) if self.swaps else []
        if not objectives:
            return removed
        return swap_refine(objectives, removed, self.ridge, self.swaps, np.arange(group.units))

    def _remove(self, objectives: list[Objective], units: int) -> Removal:
        return joint_obs([self._narrow(objective) for objective in objectives], self.ridge, np.arange(units))

    def _narrow(self, objective: Objective) -> Objective:
        """With one number a channel, where it is too wide: the same energy, and so the same weight."""
        _, channels, k = objective.W.shape
        if channels * k <= self.widest or k == 1:
            return objective
        return objective._replace(W=np.ones((1, channels, 1)), S=channel_gram(objective.W, objective.S))
