"""First-order Taylor expansion. Molchanov et al., CVPR 2019 (gates) and ICLR 2017, section 2.2 (activations)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ....channels.groups import ChannelGroup
from ....graph.model import constant_values
from ...ranking import Evidence, Ranking
from ._of_gradients import OfGradients, by_loss, gradients

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Taylor(OfGradients):
    """How much the loss changes, to first order, when a gate goes from 1 to 0; least first.

    form: "gate" is (mean_{n in b} U[n, i])^2, mean over batches b; "activation" is mean_n |U[n, i]|, divided by the
    group's l2 norm of it: (1 / M) sum_m dC/dz z of the paper is U / M, and the number M of positions cancels. These
    are compared over groups as they are.
    flops: lambda of that form, 1e-3 in the paper: from the score goes lambda times the MFLOPs of one map of the layers
    that make it (2 h w (c k^2 + 1) / 1e6, the paper's appendix), so that costly layers lose more under `global`.
    batch: so many samples are averaged before they are squared. The papers' code squares minibatches, where samples
    cancel: of what a sample does little is left but noise, 1 / batch of it. 1 keeps every sample, which orders units as
    `fisher` does.
    """

    form: Literal["gate", "activation"] = "gate"
    batch: int = 1
    flops: float = 0.0

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group."""
        U = gradients(group, evidence)
        if U is None or self.form == "gate" or not self.flops:
            return OfGradients.rank(self, group, evidence)
        costs = evidence.scores(map_mflops)
        most = max(costs[free.components].max() for free in evidence.groups.free)
        return by_loss(_normalised(U) + self.flops * (most - costs[group.components]))  # a constant keeps harms above 0

    def _rank(self, U: Array) -> Ranking:
        if self.form == "activation":
            return by_loss(_normalised(U))
        batches = np.array_split(U, max(1, len(U) // max(self.batch, 1)))
        return by_loss(np.mean([np.square(part.mean(0)) for part in batches], axis=0))


def _normalised(U: Array) -> Array:
    size = np.abs(U).mean(0)
    return size / (np.linalg.norm(size) or 1.0)


def map_mflops(evidence: Evidence) -> Array:
    """(component,) float64: 2 h w (c k^2 + 1) / 1e6 of every layer that makes a map of that unit, summed.

    c k^2: the weights of one of its filters; h w: its positions. Source: Molchanov et al., ICLR 2017, appendix A.1.
    """
    labelled, component = evidence.groups.labelled, evidence.groups.component
    costs = np.zeros(int(component.max(initial=-1)) + 1)
    for number, made in labelled.produced:
        node = labelled.graph.gs.nodes[number]
        weights = [v for t in node.inputs[1:2] if (v := constant_values(t)) is not None]
        shape = labelled.facts.shapes.get(node.outputs[0].name)
        if not weights or shape is None:
            continue
        channels = made[made >= 0]
        positions = np.prod(shape[1:]) / len(made)
        each = 2 * positions * (weights[0].size / len(made) + 1) / 1e6
        np.add.at(costs, component[channels], each)
    return costs
