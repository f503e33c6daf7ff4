"""AMC: what an agent sees of the layers, and how far it may go with each; the agent itself is in runtime/torch.

He et al., AMC: AutoML for model compression and acceleration on mobile devices, ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..channels.cost import CostModel
from ..channels.groups import ChannelGroups
from ..channels.labels import Consumer
from .methods import Frame

Array = np.ndarray
STATE = 11  # numbers that the agent sees


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """The groups in the order of the graph, one decision each.

    frame: within what widths may move
    macs: kept -> multiply-accumulates
    measure, limit: of the budget
    turns: (T,) int64, the numbers of the groups to decide
    layers: (T, 7) float64, of the layer that reads each: number, outputs, inputs, height, width, stride, kernel
    flops: (T,) float64, multiply-accumulates of the layers that read each, whole; one that reads several has parts
    """

    frame: Frame
    macs: Callable[[Array], float]
    measure: Callable[[Array], float]
    limit: float
    turns: Array
    layers: Array
    flops: Array

    def state(self, step: int, kept: Array, last: float) -> Array:
        """(STATE,) float64 in 0..1: (t, n, c, h, w, stride, k, FLOPs[t], reduced, rest, a of the step before).

        kept: (groups,) the widths so far, whole from this step on; FLOPs[t] of this step's layer, reduced: what is
        gone so far, rest: of the layers after this one, all as shares of the whole network's.
        """
        whole = self.macs(self.frame.units)
        spread = np.maximum(np.ptp(self.layers, axis=0), 1e-12)
        layer = (self.layers[step] - self.layers.min(axis=0)) / spread
        own, rest = self.flops[step], self.flops[step + 1 :].sum()
        return np.array([*layer, own / whole, 1 - self.macs(kept) / whole, rest / whole, last])

    def width(self, step: int, kept: Array, share: float) -> int:
        """Units that stay of this step's group: `share` of them, or fewer where the budget could not hold any more.

        It can while everything after this step still has its least to go to: the paper's algorithm 1, with the exact
        cost instead of a sum over layers.
        """
        group = int(self.turns[step])
        fewest = self._at_least(kept, step, len(self.turns))
        wanted = self._aligned(group, share * self.frame.units[group])
        low, high = int(fewest[group]), max(wanted, int(fewest[group]))
        if self._fits(fewest, group, high):
            return high
        align = int(self.frame.align[group])
        while high - low > align:  # low fits, high does not
            middle = self._aligned(group, (low + high) / 2)
            if middle <= low:
                middle = low + align
            low, high = (middle, high) if self._fits(fewest, group, middle) else (low, middle)
        return low

    def _fits(self, kept: Array, group: int, width: int) -> bool:
        tried = kept.copy()
        tried[group] = width
        return self.measure(tried) <= self.limit

    def _aligned(self, group: int, width: float) -> int:
        widths = self.frame.units.astype(np.float64)
        widths[group] = width
        return int(self.frame.aligned(widths)[group])

    def _at_least(self, kept: Array, first: int, end: int) -> Array:
        """The widths with the least of what is decided in these steps."""
        turns = self.turns[first:end]
        result = kept.copy()
        result[turns] = self.frame.least[turns]
        return result


def make_walk(cost: CostModel, frame: Frame, measure: Callable[[Array], float], limit: float) -> Walk:
    """The walk over the groups that may be cut, in the order in which layers read them."""
    readers = _readers(cost.groups)
    free = np.flatnonzero(frame.least < frame.units)
    place = {number: at for at, number in enumerate(readers)}
    turns = np.array(sorted(free.tolist(), key=lambda n: (place.get(n, len(place)), n)), np.int64)
    layers = [_layer(cost.groups, readers.get(n), int(frame.units[n])) for n in turns.tolist()]
    numbered = [(float(at), *layer) for at, layer in enumerate(layers)]
    flops = _flops(cost.groups)[turns]
    return Walk(frame, cost.macs, measure, limit, turns, np.array(numbered, np.float64).reshape(-1, 7), flops)


def _readers(groups: ChannelGroups) -> dict[int, Consumer]:
    """The number of each group -> the first layer that reads its channels."""
    owner = {int(c): number for number, group in enumerate(groups.groups) for c in group.components}
    found: dict[int, Consumer] = {}
    for consumer in sorted(groups.labelled.consumers, key=lambda c: c.node):
        for component in np.unique(groups.component[consumer.labels[consumer.labels >= 0]]).tolist():
            if component in owner:
                found.setdefault(owner[component], consumer)
    return found


def _flops(groups: ChannelGroups) -> Array:
    """(groups,) float64: multiply-accumulates of the layers that read each, by its part of what they read."""
    labelled, spent = groups.labelled, {}
    for term in labelled.terms:
        spent[term.node] = spent.get(term.node, 0.0) + term.coefficient * np.prod([len(axis) for axis in term.axes])
    owner = np.full(int(groups.component.max(initial=-1)) + 2, len(groups.groups))
    for number, group in enumerate(groups.groups):
        owner[group.components] = number
    found = np.zeros(len(groups.groups) + 1)
    for consumer in labelled.consumers:
        read = owner[np.where(consumer.labels >= 0, groups.component[consumer.labels], -1)]
        np.add.at(found, read, spent.get(consumer.node, 0.0) / len(read))
    return found[:-1]


def _layer(groups: ChannelGroups, consumer: Consumer | None, units: int) -> tuple[float, ...]:
    """Outputs, inputs, height and width of what it reads, stride, kernel; ones where the reader is no convolution."""
    if consumer is None:
        return float(units), float(units), 1.0, 1.0, 1.0, 1.0
    labelled = groups.labelled
    node, shapes = labelled.graph.gs.nodes[consumer.node], labelled.facts.shapes
    made = labelled.axes[node.outputs[0].name]
    data, weight = shapes.get(consumer.data, ()), shapes.get(consumer.weight or "", ())
    window = consumer.layout is not None and consumer.layout.window is not None
    outputs = len(made[1 if window else -1]) if len(made) > 1 else 1
    size = [float(n) for n in data[2:4]] if window else []
    height, width = [*size, 1.0, 1.0][:2]
    stride = float((node.attrs.get("strides") or [1])[0]) if window else 1.0
    kernel = float(weight[2]) if window and len(weight) > 2 else 1.0
    return float(outputs), float(len(consumer.labels)), height, width, stride, kernel
