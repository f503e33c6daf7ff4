"""Joint refit: after each layer by itself, a few layers together against what the original has behind them.

A layer in front of an activation is fitted to the original's outputs channel by channel, though nothing but what the
block makes of them counts. Here the layers of a stretch (two or three residual blocks, see `passes/rewrite/stretches`)
move together, front to back: inputs are those of the network as it is refitted so far, targets those of the original.
Sources: blocks as the unit of reconstruction: Li et al., BRECQ, ICLR 2021; inputs of the one network and targets of the
other: He et al. 2017, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..passes.channels.affine import affine_consumers, own_constants, with_bias
from ..passes.channels.constants import kept
from ..passes.channels.labels import LabelledGraph
from ..passes.graph.model import Graph, set_constant
from ..passes.rewrite.stretches import Stretch, stretches
from .data.sources import Batch
from .measure.segments import Frontier
from .progress import Count, silent
from .torch.joint.fit import Steps, fit_piece

Array = np.ndarray
_BYTES = 768 << 20  # of inputs and targets of a stretch; where they are more, fewer samples serve


@dataclass(slots=True)
class Joint:
    """What came of a joint refit: how many stretches there are, and how many of them are nearer with it."""

    stretches: int = 0
    nearer: int = 0


def refit_jointly(
    labelled: LabelledGraph,
    removed: Array,
    cut: Graph,
    data: Iterable[Batch],
    steps: Steps,
    progress: Count = silent,
) -> Joint:
    """Fit the layers of `cut` in place, stretches of at least `steps.layers` one after another.

    labelled: the original; removed: one bool a label, what was cut. Only weights and biases of layers that a refit may
    change at all move. A stretch that torch cannot compute stays as it is.
    """
    consumers = list(affine_consumers(labelled))
    for consumer in consumers:
        with_bias(cut, consumer)
    sizes = {name: math.prod(shape) for name, shape in labelled.facts.shapes.items()}
    parts = stretches(cut, {use for consumer in consumers for use in consumer.uses}, sizes, steps.layers)
    found = Joint(len(parts))
    batches = list(data)
    with (
        Frontier(labelled.graph, batches, device=steps.device) as original,
        Frontier(cut, batches, device=steps.device) as now,
    ):
        del batches
        for number, part in enumerate(parts):
            if not original.reach(part.end):
                break
            found.nearer += _Stretch(part, labelled, removed).fit(original, now, steps)
            progress(number + 1, len(parts))
            if not now.reach(part.end):
                break
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """One of them on its way."""

    part: Stretch
    labelled: LabelledGraph
    removed: Array

    def fit(self, original: Frontier, now: Frontier, steps: Steps) -> bool:
        """Write better weights into the graph of `now`; whether there are any."""
        bytes_each = original.bytes_of([self.part.end]) + now.bytes_of(now.tensors)
        samples = max(min(now.samples, int(_BYTES // max(bytes_each, 1))), 1)
        target = self._left(original.array(self.part.end, samples))
        piece = now.piece(self.part.end, target.dtype)
        inputs = {value.name: now.array(value.name, samples) for value in piece.graph.input}
        found = fit_piece(piece, own_constants(now.graph, self.part.layers), inputs, target, steps)
        tensors = now.graph.gs.tensors()
        for name, values in found.items():
            set_constant(tensors[name], values)
        return bool(found)

    def _left(self, values: Array) -> Array:
        """What the cut network has of them: the channels that are not removed."""
        for axis, labels in enumerate(self.labelled.axes[self.part.end]):
            stays = kept(labels, self.removed)
            if axis and not stays.all():
                values = np.compress(stays, values, axis)
        return values
