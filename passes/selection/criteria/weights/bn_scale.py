"""Scales of BatchNormalization. Liu et al., Learning efficient networks through network slimming, ICCV 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....channels.groups import ChannelGroup
from ....errors import UsageError
from ....needs import Need
from ...ranking import Evidence, Ranking
from ._magnitude import slices
from .l1 import L1


@dataclass(frozen=True, slots=True)
class BnScale:
    """s_i = sum |gamma| over the BatchNormalizations that unit i goes through.

    A group without any is ranked by the L1 norm of its weights. Raises UsageError where the model has none at all:
    exporters fold BatchNormalization into the convolutions unless they are asked for the training form.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Harm is the sum of the scales of what is gone."""
        nodes = evidence.groups.labelled.graph.gs.nodes
        scales = {node.inputs[1].name for node in nodes if node.op == "BatchNormalization"}
        if not scales:
            raise UsageError(
                "bn-scale has nothing to go by: the model has no BatchNormalization, the exporter folded them",
                where=f"group '{group.name}'",
                fix="choose another criterion, such as l1, or export the model without folding BatchNormalization",
            )
        keys = [key for key in group.slices if key.constant in scales]
        if not keys:
            return L1().rank(group, evidence)
        scores = [np.abs(slices(group, key, evidence.weight(key))).sum(axis=1) for key in keys]
        return Ranking.by_score(np.sum(scores, axis=0))
