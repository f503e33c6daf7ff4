"""The weights that make a channel, and their norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_graphsurgeon as gs

from ....channels.groups import ChannelGroup, Key
from ....channels.labels import LabelledGraph
from ....needs import Need
from ...ranking import Evidence, Ranking

Array = np.ndarray
_LARGE = 1e15  # its square overflows in float32


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Weakest weights first: s_i = sum over the weights that make unit i of the norm of its slices.

    greedy: kernels whose input channel is already gone do not count (Li et al. 2017, section 3.2).
    residual: of channels that several convolutions add up, "sum" counts all of them; "shortcut" those of the 1x1
    projection alone, where there is one (section 3.3).
    of: the filters that make a channel, or the kernels that read it (He et al., AMC, 2018).
    """

    greedy: bool = False
    residual: Literal["sum", "shortcut"] = "sum"
    of: Literal["filters", "readers"] = "filters"
    power: ClassVar[int]

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the weights; greedy: those that are still there."""
        return frozenset({"removed"}) if self.greedy else frozenset()

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Harm is the sum of the norms of what is gone."""
        keys = making(group)
        if self.residual == "shortcut":
            keys = projections(group, evidence.groups.labelled) or keys
        if self.of == "readers":
            keys = group.consumed or keys
        return Ranking.by_score(np.sum([self.norms(group, key, evidence) for key in keys], axis=0))

    def norms(self, group: ChannelGroup, key: Key, evidence: Evidence) -> Array:
        """(units,) float64: (sum |w|^power)^(1 / power) over the slices of each unit on one axis of a constant."""
        values = evidence.present(key) if self.greedy else evidence.weight(key)
        values = values.astype(np.promote_types(values.dtype, np.float32), copy=False)  # half and int8 overflow
        others = tuple(axis for axis in range(values.ndim) if axis != key.axis)
        if values.size and np.abs(values).max() > _LARGE:
            values = values.astype(np.float64)
        total = (np.abs(values) ** self.power).sum(axis=others, dtype=np.float64)
        return total[group.slices[key]].sum(axis=1) ** (1 / self.power)


def making(group: ChannelGroup) -> tuple[Key, ...]:
    """The weights that make the channel; where none does (an embedding that is added), all that is not contracted."""
    carried = tuple(key for key in group.slices if key not in group.consumed)
    return group.produced or carried or group.consumed


def slices(group: ChannelGroup, key: Key, values: Array) -> Array:
    """(units, n) float64: each unit's entries of a constant along one axis, flattened."""
    rows = np.moveaxis(values, key.axis, 0)[group.slices[key]]
    return rows.reshape(group.units, -1).astype(np.float64)


def projections(group: ChannelGroup, labelled: LabelledGraph) -> tuple[Key, ...]:
    """Those of the produced weights that belong to 1x1 convolutions on the shortcut of a residual sum.

    Such a convolution feeds an Add, possibly through a BatchNormalization, whose other operand is computed from the
    convolution's own input; the last 1x1 convolution of a bottleneck is not one: its input lies within the branch.
    """
    produced = {key.constant: key for key in group.produced}
    position = {id(node): i for i, node in enumerate(labelled.graph.gs.nodes)}
    found = []
    for node in labelled.graph.gs.nodes:
        if node.op == "Conv" and node.inputs[1].name in produced:
            pointwise = all(n == 1 for n in labelled.facts.shapes[node.inputs[1].name][2:])
            if pointwise and any(_reaches(node.inputs[0], other, position) for other in _addends(node)):
                found.append(produced[node.inputs[1].name])
    return tuple(found)


def _addends(conv: gs.Node) -> list[gs.Tensor]:
    """What is added to the convolution's output."""
    tensor = conv.outputs[0]
    if len(tensor.outputs) == 1 and tensor.outputs[0].op == "BatchNormalization":
        tensor = tensor.outputs[0].outputs[0]
    return [other for node in tensor.outputs if node.op == "Add" for other in node.inputs if other is not tensor]


def _reaches(source: gs.Tensor, target: gs.Tensor, position: dict[int, int]) -> bool:
    """Whether `target` is `source` or computed from it. Nodes before the source's own are not looked at."""
    first = max((position[id(n)] for n in source.inputs), default=-1)
    waiting, seen = [target], set()
    while waiting:
        tensor = waiting.pop()
        if tensor is source:
            return True
        for node in tensor.inputs:
            if id(node) not in seen and position.get(id(node), -1) > first:
                seen.add(id(node))
                waiting += node.inputs
    return False
