"""Collaborative channel pruning with auxiliary classifiers. Peng et al., ICML 2019."""

from __future__ import annotations

from dataclasses import dataclass

from .ccp import Ccp


@dataclass(frozen=True, slots=True)
class CcpAc(Ccp):
    """`ccp` where classifiers at intermediate depths add their loss, so that gradients say more of shallow layers.

    classifiers: how many, evenly over the depth, beside the network's own (see runtime/torch/gates/auxiliary.py).
    """

    classifiers: int = 2

    @property
    def auxiliary(self) -> int:
        """How many classifiers at intermediate depths add their loss."""
        return self.classifiers
