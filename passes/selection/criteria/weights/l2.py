"""L2 norm of the weights. Li et al., Pruning filters for efficient ConvNets, ICLR 2017, section 4.4."""

from __future__ import annotations

from dataclasses import dataclass

from ._magnitude import Magnitude


@dataclass(frozen=True, slots=True)
class L2(Magnitude):
    """s_i = sqrt(sum w^2); see Magnitude."""

    power = 2
