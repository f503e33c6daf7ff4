"""Joint refit: after each layer by itself, a few layers together against what the original has behind them.

A layer in front of an activation is fitted to the original's outputs channel by channel, though nothing but what the
block makes of them counts. Here the layers of a stretch (two or three residual blocks, see `passes/rewrite/stretches`)
move together, front to back: inputs are those of the network as it is refitted so far, targets those of the original.
Sources: blocks as the unit of reconstruction: Li et al., BRECQ, ICLR 2021; inputs of the one network and targets of the
other: He et al. 2017, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..passes.channels.affine import AffineConsumer, affine_consumers, own_constants, with_bias
from ..passes.channels.constants import kept
from ..passes.channels.labels import LabelledGraph
from ..passes.graph.model import Graph, set_constant
from ..passes.rewrite.affine_path import AffinePaths
from ..passes.rewrite.stretches import Stretch, stretches
from .data.sources import Batch
from .measure.segments import Frontier
from .progress import Count, silent
from .torch.joint.fit import Moving, Steps, fit_piece

Array = np.ndarray
_NOTHING = 1e-12  # a channel that is scaled by less than this share of the largest scale
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
    scales = _scales(labelled, removed, cut, consumers)
    batches = list(data)
    with (
        Frontier(labelled.graph, batches, device=steps.device) as original,
        Frontier(cut, batches, device=steps.device) as now,
    ):
        del batches
        for number, part in enumerate(parts):
            if not original.reach(part.end):
                break
            found.nearer += _Stretch(part, labelled, removed, scales).fit(original, now, steps)
            progress(number + 1, len(parts))
            if not now.reach(part.end):
                break
    return found


def _scales(
    labelled: LabelledGraph, removed: Array, cut: Graph, consumers: Sequence[AffineConsumer]
) -> dict[str, Array]:
    """What weights and biases are multiplied by at the end of their affine paths, by name; each broadcasts to them.

    Channels that a path takes to zero, and weights with several uses that it does differently to, have 1.
    """
    paths, tensors, shapes = AffinePaths(cut), cut.gs.tensors(), labelled.facts.shapes
    found: dict[str, Array] = {}
    for consumer in consumers:
        uses = [use for use in consumer.uses if use in tensors]
        size = int(kept(consumer.outputs, removed).sum())
        ends = [paths(use, (len(shapes[use]), consumer.layout.result, size)).scale for use in uses]
        if not ends or any(not np.array_equal(ends[0], other) for other in ends[1:]):
            continue
        size_of = np.abs(ends[0])
        scale = np.where(size_of > _NOTHING * size_of.max(initial=0), ends[0], 1)
        for name, values in own_constants(cut, uses).items():
            if name == consumer.weight.name and consumer.layout.out is not None:
                found[name] = np.expand_dims(scale, [a for a in range(values.ndim) if a != consumer.layout.out])
            elif values.size == size:
                found[name] = scale.reshape(values.shape)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """One of them on its way."""

    part: Stretch
    labelled: LabelledGraph
    removed: Array
    scales: Mapping[str, Array]

    def fit(self, original: Frontier, now: Frontier, steps: Steps) -> bool:
        """Write better weights into the graph of `now`; whether there are any."""
        bytes_each = original.bytes_of([self.part.end]) + now.bytes_of(now.tensors)
        samples = max(min(now.samples, int(_BYTES // max(bytes_each, 1))), 1)
        target = self._left(original.array(self.part.end, samples))
        piece = now.piece(self.part.end, target.dtype)
        inputs = {value.name: now.array(value.name, samples) for value in piece.graph.input}
        own = own_constants(now.graph, self.part.layers)
        moving = {name: Moving(values, self.scales.get(name, np.ones(1))) for name, values in own.items()}
        found = fit_piece(piece, moving, inputs, target, steps)
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
