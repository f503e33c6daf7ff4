"""Discrimination-aware channel pruning. Zhuang et al., NeurIPS 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....channels.groups import ChannelGroup
from ....needs import Need
from ...ranking import Evidence, Ranking
from ..weights.l2 import L2


@dataclass(frozen=True, slots=True)
class Dcp:
    """Stage by stage a copy of the network is trained and thinned; what stays has the weights found on the way.

    Channels of a layer's input are chosen one by one, by the norm of the gradient of L = L_M + weight * L_S in their
    weights, which are updated after each choice (runtime/torch/discrimination/stages.py). Groups that something else
    than layers reads are ranked by their l2 norm.

    losses: classifiers at intermediate depths, P of the paper, or as many as the network has depths for
    weight: of their loss L_S beside that of the reconstruction L_M, lambda of the paper
    passes: over the data in the fine-tuning of each stage
    tuning: the rate of its steps
    rate: of the steps between choices
    at_once: channels a choice; 1 is the paper's
    labels: whether the data's labels are used, where there are any; else the classes that the model finds
    """

    losses: int = 3
    weight: float = 1.0
    passes: int = 3
    tuning: float = 0.001
    rate: float = 0.01
    at_once: int = 1
    labels: bool = True
    needs: ClassVar[frozenset[Need]] = frozenset({"training"})
    ends: ClassVar[bool] = False

    @property
    def stop(self) -> float | None:
        """A layer gets no more channels where one lowers the loss by no more than this share of L_0; None: it does."""
        return None

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """By l2 norm, where the greedy algorithm has no say."""
        return L2().rank(group, evidence)
