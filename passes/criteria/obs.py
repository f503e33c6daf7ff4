"""Structured optimal brain surgeon with refit. Hassibi, Stork 1993; Kurtic et al., ZipLM, NeurIPS 2023."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..elimination import joint_obs
from ..removal import Consumer, Removal
from ._moments import OfReaders


@dataclass(frozen=True, slots=True)
class Obs(OfReaders):
    """Remove the unit whose loss the readers' remaining weights can best make up for, refit, repeat.

    The harm is the exact relative error of the readers after a full least-squares refit. ridge: relative to the mean
    diagonal of the covariance.
    """

    ridge: float = 1e-3

    def _remove(self, found: list[Consumer], units: int) -> Removal:
        return joint_obs(found, self.ridge, np.arange(units))
