"""Accuracy at any widths, quickly: a cut is one copy of the graph, and each layer's refit is computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from ...passes.algebra.moments import MomentsSet
from ...passes.channels.apply_removal import apply_removal
from ...passes.channels.groups import ChannelGroups
from ...passes.graph.export import to_model
from ...passes.rewrite.one_shot import Refits
from ..data.batches import Data
from ..data.sources import Batch
from ..device import Device
from ..measure.evaluate import accuracy, classifies
from ..measure.metric import Agreement

Array = np.ndarray
Choose = Callable[[Array], Mapping[str, Sequence[int]]]


class Stitched:
    """The error of the network at any widths, on samples that nothing is fitted to.

    Error: the share of the samples that get the wrong class; without labels, or where no output classifies samples
    (maps, boxes), how far the outputs are from the original's, see `Agreement`.
    choose: widths -> the removed units of each group; refits: None for none.
    """

    def __init__(
        self, groups: ChannelGroups, choose: Choose, refits: Refits | None, data: Data, device: Device
    ) -> None:
        self._groups, self._choose, self._refits = groups, choose, refits
        self._device: Device = device
        self.batches: list[Batch] = list(data)
        original = groups.labelled.graph.source
        by_labels = data.labelled and classifies(original, self.batches[0], device=device)
        self._agreement = None if by_labels else Agreement(original, data, device)

    def error(self, kept: Array) -> float:
        """0..1. kept: (groups,) int64, units that each group keeps."""
        model = self.model(kept)
        if self._agreement is not None:
            return 1.0 - self._agreement.of(model)
        return 1.0 - accuracy(model, self.batches, device=self._device).top1

    def model(self, kept: Array) -> onnx.ModelProto:
        """The cut network, refitted."""
        labelled = self._groups.labelled
        removed = self._groups.removed_labels(self._choose(kept))
        cut = apply_removal(labelled, removed)
        if self._refits is not None:
            self._refits.write(removed, cut)
        return to_model(cut)


def refits_of(groups: ChannelGroups, moments: MomentsSet | None, kind: str) -> Refits | None:
    """Of a search: what is refitted layer by layer on pruned inputs in the end, is refitted at once in between."""
    if moments is None or kind == "none":
        return None
    return Refits(
        groups.labelled, moments, "full" if kind.partition(":")[0] in ("sequential", "blocks", "distill") else kind
    )
