"""Which units are alike: those with slices on the same axes of the same constants, as many on each."""

from __future__ import annotations

import itertools
from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from ..labels import ConstantAxes, LabelledGraph

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class LabelTable:
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


def label_table(labelled: LabelledGraph) -> LabelTable:
    """The table of all constants; axes of positions are left out."""
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
        return LabelTable([], empty, empty, empty)
    return LabelTable(constants, np.concatenate(owners), np.concatenate(indices), np.concatenate(ids))


@dataclass(frozen=True, slots=True)
class UnitSlices:
    """Slices of units: parallel arrays, one entry a slice.

    unit: which unit it belongs to
    owner: the constant axis, an index into `LabelTable.constants`
    index: where it stands on that axis
    label: its label
    """

    unit: Array
    owner: Array
    index: Array
    label: Array

    def take(self, which: Array | slice) -> UnitSlices:
        return UnitSlices(self.unit[which], self.owner[which], self.index[which], self.label[which])


def footprints(rows: UnitSlices, number: int, reasons: dict[int, str]) -> tuple[Array, Array]:
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
    pairs = np.stack([alike(rows.unit, rows.owner, number)[units], why[units]])
    kind[units] = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    return kind, first


def told_apart(kind: Array, labelled: LabelledGraph, component: Array, pinned: Container[int]) -> Array:
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
    halves = alike(np.concatenate(parts), numbers, len(kind))
    told = np.unique(np.stack([kind, halves]), axis=1, return_inverse=True)[1].reshape(-1)
    return np.where(kind >= 0, told, -1)


def alike(unit: Array, feature: Array, number: int) -> Array:
    """(number,) int64: units with the same multiset of features share a value; 0 for those that have none.

    unit, feature: parallel arrays, one entry a feature of a unit.
    """
    order = np.lexsort((feature, unit))
    unit, feature = unit[order], feature[order]
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    lengths = np.diff(starts, append=len(unit))
    numbers = np.zeros(number, np.int64)
    for length in np.unique(lengths).tolist():
        these = starts[lengths == length]
        table = feature[these[:, None] + np.arange(length)]
        numbers[unit[these]] = numbers.max() + 1 + np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers


def runs(values: Array) -> list[tuple[int, int]]:
    """Start and end of each run of equal values."""
    if not len(values):
        return []
    inner = (np.flatnonzero(values[1:] != values[:-1]) + 1).tolist()
    return list(itertools.pairwise([0, *inner, len(values)]))
