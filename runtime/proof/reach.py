"""Whether the proof saw each cut group: what is left of it went into a node, and what the node made was compared.

A group ends in the nodes that sum over its channels. Its cut is shown by one of them where a kept channel of it that
the node reads holds finite numbers that vary, and so does a tensor that the node makes. A group that went entirely ends
where something is read in its place: the first nodes behind it that are left. Where a node shows nothing on
any input, as behind a logarithm of negative numbers, a wrong cut in front of it would look like a right one. So it
would where a tensor that carries kept channels never varies, as in a branch that a gate has shut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...passes.channels.constants import gone, kept
from ...passes.channels.groups import ChannelGroups
from ...passes.channels.labels import Axes
from .difference import Difference
from .inner import Watched

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class _End:
    """Where a group ends.

    node: its name, in words
    read: the tensors with kept channels of the group that it reads; none where the group went entirely
    made: what it makes
    """

    node: str
    read: frozenset[str]
    made: frozenset[str]


@dataclass(slots=True)
class Reach:
    """What has to be seen of each cut group, and what has been.

    ends: group's number -> where it ends; one that ends nowhere has all tensors that carry it as one end
    bearing: tensor -> the groups of which it holds kept channels and has lost some, and the node that makes it
    """

    groups: ChannelGroups
    removed: Array
    owner: Array
    ends: dict[int, list[_End]]
    bearing: dict[str, tuple[set[int], str]]
    _compared: set[str] = field(default_factory=set)
    _shown: dict[str, set[int]] = field(default_factory=dict)  # tensor -> the groups of which a kept channel varied
    _varied: set[str] = field(default_factory=set)

    def add(self, tensors: Iterable[Watched], found: Mapping[str, Difference]) -> None:
        """Count in what a run has shown."""
        read = set().union(*(end.read for ends in self.ends.values() for end in ends))
        for tensor in tensors:
            difference = found.get(tensor.name)
            if difference is None or not tensor.evidence:
                continue
            self._compared.add(tensor.name)
            if not difference.varied.any():
                continue
            self._varied.add(tensor.name)
            if tensor.name in read:
                self._shown.setdefault(tensor.name, set()).update(self._groups_in(tensor, difference.varied))

    def _groups_in(self, tensor: Watched, varied: Array) -> set[int]:
        axes = self.groups.labelled.axes[tensor.name]
        found: set[int] = set()
        if varied.ndim != len(tensor.channels):
            return found
        for i, axis in enumerate(tensor.channels):
            labels = axes[axis][kept(axes[axis], self.removed)]
            shown = np.asarray(varied.any(tuple(j for j in range(varied.ndim) if j != i)))
            if labels.shape == shown.shape:
                found.update(np.unique(self.owner[labels[shown & (labels >= 0)]]).tolist())
        return found

    def unseen(self) -> dict[str, str]:
        """Name of each cut group that nothing has shown yet -> the node that shows nothing, in words."""
        result = {}
        for number, ends in self.ends.items():
            blind = next((end for end in ends if not self._seen(number, end)), None)
            if blind is not None:
                result[self.groups.groups[number].name] = blind.node
        for name in sorted(self._compared & (self.bearing.keys() - self._varied)):
            numbers, node = self.bearing[name]
            for number in sorted(numbers):
                result.setdefault(self.groups.groups[number].name, node)
        return result

    def _seen(self, number: int, end: _End) -> bool:
        read = not end.read or any(number in self._shown.get(name, ()) for name in end.read)
        return read and bool(end.made & self._varied)

    def missing(self) -> set[str]:
        """The tensors that would have to be seen."""
        ends = [end for number, ends in self.ends.items() for end in ends if not self._seen(number, end)]
        return set().union(self.bearing.keys() - self._varied, *(end.read | end.made for end in ends))

    def behind(self, names: set[str]) -> set[str]:
        """The tensors that are computed from these which have not varied."""
        found = names - self._varied
        for node in self.groups.labelled.graph.gs.nodes if found else ():
            if not found.isdisjoint(t.name for t in node.inputs):
                found.update(t.name for t in node.outputs)
        return found


def reach(groups: ChannelGroups, removed: Array, tensors: Sequence[Watched]) -> Reach:
    """Where each group with removed labels (one bool a label) ends, among the tensors that can be compared."""
    owner = np.full(int(groups.component.max(initial=-1)) + 1, -1)
    for number, group in enumerate(groups.groups):
        owner[group.components] = number
    owner = owner[groups.component]
    carried = _Carried(groups.labelled.axes, owner, removed)
    comparable = {tensor.name for tensor in tensors if tensor.evidence}
    cut = set(np.unique(owner[removed]).tolist()) - {-1}
    ends: dict[int, list[_End]] = {number: [] for number in sorted(cut)}
    whole = cut - set(np.unique(owner[~removed]).tolist())
    consumed: dict[int, set[int]] = {}
    for consumer in groups.labelled.consumers:
        consumed.setdefault(consumer.node, set()).update(carried.of_axis(consumer.labels))
    for index, node in enumerate(groups.labelled.graph.gs.nodes):
        inputs = {t.name: carried.of(t.name) for t in node.inputs if t.name}
        outputs = [t.name for t in node.outputs if t.name]
        going = set().union(*inputs.values())
        if not going:
            continue
        ending = (going - set().union(*(carried.of(name) for name in outputs))) | (consumed.get(index, set()) & going)
        made = frozenset(comparable.intersection(outputs))
        for number in ending & cut if made else ():
            read = frozenset(name for name, inside in inputs.items() if number in inside and number not in whole)
            ends[number].append(_End(f"{node.op} '{node.name or outputs[0]}'", read, made))
    for number in [number for number in whole if not ends[number]]:
        ends[number] = _behind(
            groups, [name for name in groups.labelled.axes if number in carried.of(name)], comparable
        )
    for number in [number for number, found in ends.items() if not found]:  # as queries, which stay inside one node
        shown = frozenset(name for name in comparable if number in carried.of(name))
        stored = [] if shown else sorted({name for name, _, _ in groups.groups[number].slices})
        ends[number] = _behind(groups, stored, comparable) or [_End("what holds its channels", shown, shown)]
    makers = {t.name: node for node in groups.labelled.graph.gs.nodes for t in node.outputs}
    bearing = {
        t.name: (inside, f"{makers[t.name].op} '{makers[t.name].name or t.name}'")
        for t in tensors
        if t.evidence and t.kept and t.name in makers and (inside := (carried.of(t.name) & cut) - whole)
    }
    return Reach(groups, removed, owner, ends, bearing)


def _behind(groups: ChannelGroups, bearing: list[str], comparable: set[str]) -> list[_End]:
    """The first nodes behind these tensors whose results can be compared."""
    tensors = groups.labelled.graph.gs.tensors()
    waiting, passed, ends = bearing, set(bearing), []
    while waiting:
        for node in tensors[waiting.pop()].outputs:
            made = frozenset(comparable.intersection(t.name for t in node.outputs))
            if made:
                ends.append(_End(f"{node.op} '{node.name or node.outputs[0].name}'", frozenset(), made))
                continue
            names = {t.name for t in node.outputs if t.name} - passed
            waiting += sorted(names)
            passed |= names
    return ends


class _Carried:
    """The groups of which a tensor carries removed channels; axes are shared by many tensors, and asked once."""

    def __init__(self, axes: Mapping[str, Axes], owner: Array, removed: Array) -> None:
        self._axes, self._owner, self._removed = axes, owner, removed
        self._known: dict[int, set[int]] = {}

    def of(self, name: str) -> set[int]:
        return set().union(*(self.of_axis(axis) for axis in self._axes.get(name, ())))

    def of_axis(self, axis: Array) -> set[int]:
        if id(axis) not in self._known:
            away = gone(axis, self._removed)
            self._known[id(axis)] = set(np.unique(self._owner[axis[away]]).tolist()) if away.any() else set()
        return self._known[id(axis)]
