"""Which groups may go entirely: those without which every consumer gives a constant that the graph can take in.

Groups are taken up one after the other, so that any set of those that may go can go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from ..groups import ChannelGroups
from .settle import Settled, Wiring, settle

Array = np.ndarray
Some = frozenset[int]  # numbers of groups that go entirely
_COMBINATIONS = 64  # that are tried for a group; where more meet, it keeps a unit


class Vanishing:
    """What becomes of a graph where groups go entirely; groups are numbers in `groups.groups`."""

    def __init__(self, groups: ChannelGroups) -> None:
        self.groups = groups
        self._settled: dict[Some, Settled] = {}

    @cached_property
    def reasons(self) -> Mapping[str, str | None]:
        """Free group -> why it must keep a unit; None where it may go entirely, alone and with any others that may."""
        search = _Search(self)
        return {g.name: search.add(n) for n, g in enumerate(self.groups.groups) if g.pinned is None}

    @cached_property
    def may_go(self) -> Array:
        """One bool a group."""
        return np.array([self.reasons.get(g.name, "pinned") is None for g in self.groups.groups], bool)

    def settled(self, gone: Some) -> Settled:
        """The graph without these groups."""
        if gone not in self._settled:
            self._settled[gone] = settle(self.wiring, self.axes.empty(gone))
        return self._settled[gone]

    def completed(self, kept: Array) -> Array:
        """`kept` with 0 for each free group that only nodes read which go with those that are at 0 already."""
        gone = frozenset(np.flatnonzero(kept == 0).tolist())
        if not gone:
            return kept
        nodes = self.settled(gone).gone
        more = gone | {n for n, readers in self._free_readers.items() if readers <= nodes}
        if more == gone or self.settled(more).problem is not None:
            return kept
        result = kept.copy()
        result[list(more)] = 0
        return result

    def sparing(self, may: Array, stays: Some) -> Array:
        """Of the groups that may go (one bool each) those that can go together without taking these with them."""
        if not stays:
            return may
        chosen: Some = frozenset()
        for number in np.flatnonzero(may).tolist():
            nodes = self.settled(chosen | {number}).gone
            if not any(self._free_readers[group] <= nodes for group in stays):
                chosen |= {number}
        return np.isin(np.arange(len(may)), list(chosen))

    @cached_property
    def wiring(self) -> Wiring:
        return Wiring(self.groups.labelled)

    @cached_property
    def axes(self) -> _GroupsOfAxes:
        return _GroupsOfAxes(self.groups)

    @cached_property
    def _free_readers(self) -> dict[int, frozenset[int]]:
        """Free group -> the nodes that read its constants."""
        readers = self.wiring.readers
        return {
            number: frozenset(node for key in group.slices for node in readers.get(key.constant, ()))
            for number, group in enumerate(self.groups.groups)
            if group.pinned is None
        }


class _GroupsOfAxes:
    """Which groups lie on the axes of each tensor, where nothing else does."""

    def __init__(self, groups: ChannelGroups) -> None:
        self._owner = np.full(int(groups.component.max(initial=-1)) + 1, -1)
        for number, group in enumerate(groups.groups):
            if group.pinned is None:
                self._owner[group.components] = number
        self._units = np.array([g.units for g in groups.groups], np.int64)
        self._component = groups.component
        self._found: dict[int, tuple[Some, Some] | None] = {}
        self.tensors: dict[int, list[tuple[str, Some]]] = {}  # group -> tensors that are empty without these groups
        self.guarded: dict[int, list[Some]] = {}  # group -> of these one has to stay: others lie there in part
        seen: set[tuple[str, Some]] = set()
        for name, axes in groups.labelled.axes.items():
            for axis in axes:
                found = self._groups(axis)
                if found is not None and (name, found[0] | found[1]) not in seen:
                    seen.add((name, found[0] | found[1]))
                    self._note(name, *found)

    def empty(self, gone: Some) -> set[str]:
        """Tensors that hold nothing without these groups."""
        return {name for number in gone for name, need in self.tensors.get(number, ()) if need <= gone}

    def _note(self, name: str, whole: Some, part: Some) -> None:
        for number in whole | part:
            self.tensors.setdefault(number, []).append((name, whole | part))
        if part:
            for number in whole:
                self.guarded.setdefault(number, []).append(whole)

    def _groups(self, axis: Array) -> tuple[Some, Some] | None:
        """Groups all of whose units lie on the axis, and those of which some do; None where something else does."""
        if id(axis) not in self._found:
            self._found[id(axis)] = self._read(axis)
        return self._found[id(axis)]

    def _read(self, axis: Array) -> tuple[Some, Some] | None:
        if not axis.size or axis.min() < 0:
            return None
        owners, count = np.unique(self._owner[np.unique(self._component[axis])], return_counts=True)
        if owners[0] < 0:
            return None
        whole = count == self._units[owners]
        return frozenset(owners[whole].tolist()), frozenset(owners[~whole].tolist())


class _Search:
    """The groups that may go so far, and where each leaves a constant that another operand may meet."""

    def __init__(self, vanishing: Vanishing) -> None:
        self._vanishing = vanishing
        self._accepted: set[int] = set()
        self._taken: dict[int, list[tuple[Some, Some]]] = {}  # node -> (its constant operands, without these groups)

    def add(self, number: int) -> str | None:
        """Take a group up, or say why not."""
        axes = self._vanishing.axes
        allowed = self._accepted | {number}
        if any(need <= allowed for need in axes.guarded.get(number, ())):
            return "an axis would be left with a part of another group alone"
        reason, taken = self._tried(number, allowed)
        if reason is None:
            self._accepted = allowed
            for node, found in taken:
                self._taken.setdefault(node, []).append(found)
        return reason

    def _tried(self, number: int, allowed: set[int]) -> tuple[str | None, list[tuple[int, tuple[Some, Some]]]]:
        """The group alone, with those that empty an axis together with it, and with those that it meets at a node."""
        tensors = self._vanishing.axes.tensors.get(number, ())
        waiting = [frozenset({number}), *{need for _, need in tensors if len(need) > 1 and need <= allowed}]
        tried: set[Some] = set()
        taken: list[tuple[int, tuple[Some, Some]]] = []
        while waiting:
            gone = waiting.pop(0)
            if gone in tried:
                continue
            tried.add(gone)
            if len(tried) > _COMBINATIONS:
                return "too many other groups meet it", []
            settled = self._vanishing.settled(gone)
            if settled.problem is not None:
                return self._said(settled.problem, gone - {number}), []
            for node, operands in settled.operands.items():
                others = [*self._taken.get(node, ()), *(found for place, found in taken if place == node)]
                waiting += [gone | other for their, other in others if their != operands]
                taken.append((node, (operands, gone)))
        return None, taken

    def _said(self, problem: str, others: Some) -> str:
        names = sorted(self._vanishing.groups.groups[n].name for n in others)
        return f"{problem}, {' and '.join(names)} being gone" if names else problem
