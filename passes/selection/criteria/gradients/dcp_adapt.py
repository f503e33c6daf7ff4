"""Discrimination-aware channel pruning with adaptive stopping. Zhuang et al., NeurIPS 2018, section 3.4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .dcp import Dcp


@dataclass(frozen=True, slots=True)
class DcpAdapt(Dcp):
    """`dcp` that ends by itself: a layer gets no more channels where |L_(t-1) - L_t| <= tolerance * L_0.

    It needs no budget; where a budget asks for less, the tolerance is raised until it holds, one for all layers.
    """

    tolerance: float = 1e-3
    ends: ClassVar[bool] = True

    @property
    def stop(self) -> float | None:
        """The tolerance."""
        return self.tolerance
