"""From labels to groups: connected components of the ties are units, units with the same footprint are a group.

A unit is everything that must be removed together. Its footprint says on which axes of which constants it has slices,
and how many on each; a group is the units of one footprint, so that removing any of them costs and saves the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .labels import LabelledGraph
from .solve.components import components, pin_reasons
from .solve.footprints import LabelTable, UnitSlices, footprints, label_table, runs, told_apart
from .solve.splits import resolve_splits

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


def _flags(count: int, arrays: Iterable[Array]) -> Array:
    flags = np.zeros(count, bool)
    for array in arrays:
        flags[array[array >= 0]] = True
    return flags


def _collect(labelled: LabelledGraph, component: Array, reasons: dict[int, str]) -> tuple[ChannelGroup, ...]:
    table = label_table(labelled)
    produced = _flags(labelled.count, (a for _, a in labelled.produced))
    consumed = _flags(labelled.count, labelled.consumed)
    number = int(component.max(initial=-1)) + 1
    is_unit = np.zeros(number, bool)
    is_unit[component[produced | consumed]] = True
    chosen = is_unit[component[table.label]]
    rows = UnitSlices(component[table.label], table.owner, table.index, table.label).take(chosen)
    if not rows.unit.size:
        return ()
    kind, first = footprints(rows, number, reasons)
    kind = told_apart(kind, labelled, component, reasons)
    makers = _makers(labelled, component)
    coupled = {c for _, a in labelled.coupled for c in np.unique(component[a[a >= 0]]).tolist()}
    rows = rows.take(np.lexsort((rows.index, first[rows.unit], rows.owner, kind[rows.unit])))
    groups = []
    for start, end in runs(kind[rows.unit]):
        part = rows.take(slice(start, end))
        slices, members = _slices(table, part)
        keys = list(slices)
        roles = [
            tuple(keys[i] for i, (a, b) in enumerate(runs(part.owner)) if flags[part.label[a:b]].any())
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


def _slices(table: LabelTable, part: UnitSlices) -> tuple[dict[Key, Array], Array]:
    """The slices of one group's units, an array a constant axis, and the units in their order."""
    spans = runs(part.owner)
    members = part.unit[: spans[0][1]]
    members = members[[start for start, _ in runs(members)]]
    slices: dict[Key, Array] = {}
    for start, end in spans:
        constant, axis = table.constants[part.owner[start]]
        slices[Key(constant.name, constant.use, axis)] = part.index[start:end].reshape(len(members), -1)
    return slices, members


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
