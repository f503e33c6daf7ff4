"""From labels to groups: connected components of the ties are units, units with the same footprint are a group.

A unit is everything that must be removed together. Its footprint says on which axes of which constants it has slices,
and how many on each; a group is the units of one footprint, so that removing any of them costs and saves the same.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .components import components, pin_reasons
from .labels import ConstantAxes, LabelledGraph
from .splits import resolve_splits

Array = np.ndarray


class Key(NamedTuple):
    """An axis of a constant, or of one use of it.

    constant: its name
    use: "" or the output name of the node that reads it, where a small vector is shared by several
    axis: its number
    """

    constant: str
    use: str
    axis: int


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Units that are alike.

    name: from the first node that makes them
    units: how many there are
    pinned: why they must stay, or None
    slices: constant axis -> (units, m) indices, the m slices of each unit on it
    produced: the constant axes whose slices make the channel
    consumed: the constant axes that are contracted
    components: of each unit, its number in `ChannelGroups.component`
    inexact: removal changes the statistics of a normalisation: what is left is normalised by its own
    """

    name: str
    units: int
    pinned: str | None
    slices: dict[Key, Array]
    produced: tuple[Key, ...]
    consumed: tuple[Key, ...]
    components: Array
    inexact: bool = False

    def __repr__(self) -> str:
        return f"ChannelGroup({self.name!r}, units={self.units}, pinned={self.pinned!r})"


@dataclass(frozen=True, slots=True)
class ChannelGroups:
    """Every group of a graph, in the order of the graph.

    labelled: the graph
    component: (count,) int64, the unit of each label
    groups: its groups
    """

    labelled: LabelledGraph
    component: Array
    groups: tuple[ChannelGroup, ...]

    def __repr__(self) -> str:
        return f"ChannelGroups({len(self.groups)} groups, {len(self.free)} free)"

    @property
    def free(self) -> tuple[ChannelGroup, ...]:
        return tuple(g for g in self.groups if g.pinned is None)

    def __getitem__(self, name: str) -> ChannelGroup:
        return next(g for g in self.groups if g.name == name)

    def removed_labels(self, removed: Mapping[str, Iterable[int]]) -> Array:
        """Group name -> removed units, as one bool a label."""
        gone = np.zeros(int(self.component.max(initial=-1)) + 1, bool)
        for group in self.groups:
            units = np.asarray(list(removed.get(group.name, ())), np.int64)
            if units.size:
                assert group.pinned is None, f"{group.name} is pinned"
                gone[group.components[units]] = True
        return gone[self.component]


def channel_groups(labelled: LabelledGraph) -> ChannelGroups:
    """Solve ties, splits and pins. Linear in the number of labels, but for the sorts."""
    ties, pins = resolve_splits(labelled)
    component = components(labelled.count, [*labelled.ties, *ties])
    reasons = pin_reasons(component, [*labelled.pins, *pins])
    groups = _collect(labelled, component, reasons)
    return ChannelGroups(labelled, component, groups)


@dataclass(frozen=True, slots=True)
class _Table:
    """Every label of a constant, once an axis that it stands on: parallel arrays.

    constants: the constant axes, as the constant and the number of the axis
    owner: the constant axis, an index into `constants`
    index: where the label stands on it
    label: the label
    """

    constants: list[tuple[ConstantAxes, int]]
    owner: Array
    index: Array
    label: Array


def _table(labelled: LabelledGraph) -> _Table:
    constants, owners, indices, ids = [], [], [], []
    for constant in labelled.constants.values():
        for axis, array in enumerate(constant.labels):
            if array.size and array[0] >= 0:
                owners.append(np.full(len(array), len(constants)))
                indices.append(np.arange(len(array)))
                ids.append(array)
                constants.append((constant, axis))
    if not constants:
        empty = np.zeros(0, np.int64)
        return _Table([], empty, empty, empty)
    return _Table(constants, np.concatenate(owners), np.concatenate(indices), np.concatenate(ids))


def _flags(count: int, arrays: Iterable[Array]) -> Array:
    flags = np.zeros(count, bool)
    for array in arrays:
        flags[array[array >= 0]] = True
    return flags


def _collect(labelled: LabelledGraph, component: Array, reasons: dict[int, str]) -> tuple[ChannelGroup, ...]:
    table = _table(labelled)
    produced = _flags(labelled.count, (a for _, a in labelled.produced))
    consumed = _flags(labelled.count, labelled.consumed)
    number = int(component.max(initial=-1)) + 1
    is_unit = np.zeros(number, bool)
    is_unit[component[produced | consumed]] = True
    chosen = is_unit[component[table.label]]
    rows = _Rows(component[table.label], table.owner, table.index, table.label).take(chosen)
    if not rows.unit.size:
        return ()
    kind, first = _footprints(rows, number, reasons)
    kind = _part(kind, labelled, component, reasons)
    makers = _makers(labelled, component)
    coupled = {c for _, a in labelled.coupled for c in np.unique(component[a[a >= 0]]).tolist()}
    rows = rows.take(np.lexsort((rows.index, first[rows.unit], rows.owner, kind[rows.unit])))
    groups = []
    for start, end in _runs(kind[rows.unit]):
        part = rows.take(slice(start, end))
        slices, members = _slices(table, part)
        keys = list(slices)
        roles = [
            tuple(keys[i] for i, (a, b) in enumerate(_runs(part.owner)) if flags[part.label[a:b]].any())
            for flags in (produced, consumed)
        ]
        one = int(members[0])
        groups.append(
            ChannelGroup(
                name=_name(labelled, makers.get(one), keys[0].constant),
                units=len(members),
                pinned=reasons.get(one),
                slices=slices,
                produced=roles[0],
                consumed=roles[1],
                components=members,
                inexact=not coupled.isdisjoint(members.tolist()),
            )
        )
    groups.sort(key=lambda g: first[g.components[0]])
    return _unique_names(groups)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Slices of units: parallel arrays, one entry a slice.

    unit: which unit it belongs to
    owner: the constant axis, an index into `_Table.constants`
    index: where it stands on that axis
    label: its label
    """

    unit: Array
    owner: Array
    index: Array
    label: Array

    def take(self, which: Array | slice) -> _Rows:
        return _Rows(self.unit[which], self.owner[which], self.index[which], self.label[which])


def _runs(values: Array) -> list[tuple[int, int]]:
    """Start and end of each run of equal values."""
    bounds = np.flatnonzero(np.diff(values, prepend=values[0] - 1, append=values[-1] - 1 if len(values) else 0))
    bounds = np.append(bounds[bounds < len(values)], len(values))
    return list(itertools.pairwise(bounds.tolist()))


def _slices(table: _Table, part: _Rows) -> tuple[dict[Key, Array], Array]:
    """The slices of one group's units, an array a constant axis, and the units in their order."""
    runs = _runs(part.owner)
    members = part.unit[: runs[0][1]]
    members = members[[start for start, _ in _runs(members)]]
    slices: dict[Key, Array] = {}
    for start, end in runs:
        constant, axis = table.constants[part.owner[start]]
        slices[Key(constant.name, constant.use, axis)] = part.index[start:end].reshape(len(members), -1)
    return slices, members


def _footprints(rows: _Rows, number: int, reasons: dict[int, str]) -> tuple[Array, Array]:
    """Of each component: the number of its footprint (units that are alike share it), and its first label."""
    order = np.argsort(rows.unit, kind="stable")
    starts = np.flatnonzero(np.diff(rows.unit[order], prepend=-1))
    units = rows.unit[order][starts]
    first = np.full(number, np.iinfo(np.int64).max)
    first[units] = np.minimum.reduceat(rows.label[order], starts)
    texts = {text: i + 1 for i, text in enumerate(dict.fromkeys(reasons.values()))}
    why = np.zeros(number, np.int64)
    for c, text in reasons.items():
        why[c] = texts[text]
    kind = np.full(number, -1)
    pairs = np.stack([_alike(rows.unit, rows.owner, number)[units], why[units]])
    kind[units] = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    return kind, first


def _alike(unit: Array, feature: Array, number: int) -> Array:
    """(number,) int64: units with the same multiset of features share a value; 0 for those that have none.

    unit, feature: parallel arrays, one entry a feature of a unit.
    """
    order = np.lexsort((feature, unit))
    unit, feature = unit[order], feature[order]
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    lengths = np.diff(starts, append=len(unit))
    alike = np.zeros(number, np.int64)
    for length in np.unique(lengths).tolist():
        these = starts[lengths == length]
        table = feature[these[:, None] + np.arange(length)]
        alike[unit[these]] = alike.max() + 1 + np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    return alike


def _part(kind: Array, labelled: LabelledGraph, component: Array, pinned: Container[int]) -> Array:
    """The same footprints, but numbered apart where an axis would otherwise lose all of its units at once.

    Take an axis of a tensor that holds some units of each of its footprints, but all units of none: a Split into
    halves that are joined again makes two. Were the halves one group, a removal could empty one of them. So units that
    stand on different such axes get different footprints. Axes that keep a unit anyway, because it is pinned, do not
    count.

    kind: (components,) int64, the number of each component's footprint, -1 for those that are no units
    pinned: the components that stay
    Returns the new numbers, likewise.
    """
    sizes = np.bincount(kind[kind >= 0])
    parts: list[Array] = []
    for axis in {id(a): a for axes in labelled.axes.values() for a in axes}.values():
        if not axis.size or axis.min() < 0:
            continue
        inside = np.unique(component[axis])
        kinds, count = np.unique(kind[inside], return_counts=True)
        if kinds[0] >= 0 and (count < sizes[kinds]).all() and not any(c in pinned for c in inside.tolist()):
            parts.append(inside)
    if not parts:
        return kind
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    alike = _alike(np.concatenate(parts), numbers, len(kind))
    told = np.unique(np.stack([kind, alike]), axis=1, return_inverse=True)[1].reshape(-1)
    return np.where(kind >= 0, told, -1)


def _makers(labelled: LabelledGraph, component: Array) -> dict[int, int]:
    """Component -> the first node that produces it."""
    makers: dict[int, int] = {}
    for node, array in labelled.produced:
        for c in np.unique(component[array[array >= 0]]).tolist():
            makers.setdefault(c, node)
    return makers


def _name(labelled: LabelledGraph, node: int | None, constant: str) -> str:
    """A module path where the model has one: the weight's name, else the node's; see docs/architecture.md."""
    if node is None:
        return re.sub(r"\.weight$", "", constant) + ":in"
    maker = labelled.graph.gs.nodes[node]
    for tensor in maker.inputs[1:2]:
        path = re.fullmatch(r"(.+)\.(?:weight|kernel|W)(?:_\w+)?", tensor.name)
        if path and "::" not in tensor.name:
            return path[1]
    parts = [p for p in maker.name.split("/") if p]
    if len(parts) > 1:
        parts = parts[:-1]  # the last is the operator
        kept = [p for p, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{p}.")]
        return ".".join(kept)
    return maker.name or maker.outputs[0].name


def _unique_names(groups: list[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    seen: dict[str, int] = {}
    result = []
    for g in groups:
        seen[g.name] = seen.get(g.name, 0) + 1
        name = g.name if seen[g.name] == 1 else f"{g.name}#{seen[g.name]}"
        result.append(replace(g, name=name))
    return tuple(result)
