"""Collaborative channel pruning with auxiliary classifiers. Peng et al., ICML 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .ccp import Ccp


@dataclass(frozen=True, slots=True)
class CcpAc(Ccp):
    """`ccp` where classifiers at intermediate depths add their loss, so that gradients say more of shallow layers.

    S = sum_h U_h^T U_h / N over the losses h, the network's own and those of the classifiers, all of weight 1 as in
    Zhuang et al. 2018, equation 5.
    classifiers: how many, evenly over the depth, beside the network's own (see runtime/torch/gates/auxiliary.py).
    heads: "fitted" to the network as it is; "finetuned": then trained together with it (runtime/torch/gates/tuning.py).
    """

    classifiers: int = 2
    heads: Literal["fitted", "finetuned"] = "fitted"

    @property
    def auxiliary(self) -> int:
        """How many classifiers at intermediate depths add their loss."""
        return self.classifiers

    @property
    def tuned(self) -> bool:
        """Whether these classifiers are trained together with the network before gradients are taken."""
        return self.heads == "finetuned"
