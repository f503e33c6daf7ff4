"""L1 norm of the weights. Li et al., Pruning filters for efficient ConvNets, ICLR 2017."""

from __future__ import annotations

from dataclasses import dataclass

from ._magnitude import Magnitude


@dataclass(frozen=True, slots=True)
class L1(Magnitude):
    """s_i = sum |w|; see Magnitude."""

    power = 1
