"""Lengths of axes as functions of how many units each group keeps, and sums of products of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Products:
    """A sum of products of lengths: sum_i coefficient[i] * prod_j lengths[axes[i, j]].

    coefficient: (n,) float64
    axes: (n, j) int64 numbers of axes; rows are filled up with the number of an axis of length 1
    """

    coefficient: Array
    axes: Array

    def __call__(self, lengths: Array, counted: Array | float = 1.0) -> int:
        return round(float((self.coefficient * counted) @ lengths[self.axes].prod(axis=1)))


class AxisTable:
    """The different axes of terms and constants, numbered from 1; 0 is an axis of length 1."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self._numbers: dict[int, int] = {}

    def rows(self, axes: Iterable[Sequence[Array]]) -> Array:
        """(rows, j) numbers of the axes of each, filled up with 0."""
        rows = list(axes)
        numbers = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
        for i, row in enumerate(rows):
            numbers[i, : len(row)] = [self._number(axis) for axis in row]
        return numbers

    def _number(self, axis: Array) -> int:
        if id(axis) not in self._numbers:
            self.arrays.append(axis)
            self._numbers[id(axis)] = len(self.arrays)
        return self._numbers[id(axis)]


def affine_lengths(arrays: Sequence[Array], owner: Array, units: Array) -> tuple[Array, csr_array]:
    """(base, M) such that base + M @ kept are the lengths of 1, *arrays, as float64: exact up to 2^53.

    arrays: labels of axes, negative where nothing can go
    owner: of each label the number of its group, -1 for none
    units: (groups,) int64, those of each group when all are kept; they lie on every axis alike
    """
    lengths = np.array([1, *(len(a) for a in arrays)], np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    labels = np.concatenate([np.array([-1]), *arrays])
    found = np.where(labels >= 0, owner[labels], -1) if len(owner) else np.full(len(labels), -1)
    rows, columns = rows[found >= 0], found[found >= 0]
    matrix = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(lengths), len(units)))
    matrix.sum_duplicates()
    base = lengths - matrix.sum(axis=1)
    matrix.data /= units[matrix.indices]
    assert not (matrix.data % 1).any(), "units of a group lie differently on an axis"
    return base, matrix
