"""First-order Taylor expansion. Molchanov et al., CVPR 2019 (gates) and ICLR 2017, section 2.2 (activations)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...ranking import Ranking
from ._of_gradients import OfGradients, by_loss

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Taylor(OfGradients):
    """How much the loss changes, to first order, when a gate goes from 1 to 0; least first.

    form: "gate" is (mean_{n in b} U[n, i])^2, mean over batches b; "activation" is mean_n |U[n, i]|, divided by the
    group's norm of it: (1 / M) sum_m dC/dz z of the paper is U / M, and the number M of positions cancels.
    batch: so many samples are averaged before they are squared. The papers' code squares minibatches, where samples
    cancel: of what a sample does little is left but noise, 1 / batch of it. 1 keeps every sample, which orders units as
    `fisher` does.
    """

    form: Literal["gate", "activation"] = "gate"
    batch: int = 1

    def _rank(self, U: Array) -> Ranking:
        if self.form == "activation":
            size = np.abs(U).mean(0)
            return Ranking.by_score(size / (np.linalg.norm(size) or 1.0))
        batches = np.array_split(U, max(1, len(U) // max(self.batch, 1)))
        return by_loss(np.mean([np.square(part.mean(0)) for part in batches], axis=0))
