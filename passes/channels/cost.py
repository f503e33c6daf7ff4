"""What a network costs at any widths: exact multiply-accumulates, parameters and bytes, without cutting it.

A node costs coefficient * prod(length of an axis), a constant holds prod(length of an axis) elements. The units of a
group are alike, so the length of every axis is affine in the numbers of kept units: lengths = base + M @ kept, with M
sparse and built once. Everything else is products over these lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import TensorProto
from scipy.sparse import csr_array

from ..graph.export import infer_shapes
from ..graph.model import constant_values
from ..graph.spill import file_bytes, without_weights
from .constants import readers
from .groups import ChannelGroups
from .labels import Axes, ConstantAxes, LabelledGraph

Array = np.ndarray

_FLOATING = frozenset(
    kind
    for name, kind in TensorProto.DataType.items()
    if name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16") or name[:6] == "FLOAT8"
)


@dataclass(frozen=True, slots=True)
class _Products:
    """A sum of products of lengths: sum_i coefficient[i] * prod_j lengths[axes[i, j]].

    coefficient: (n,) float64
    axes: (n, j) int64 numbers of axes; rows are filled up with the number of an axis of length 1
    """

    coefficient: Array
    axes: Array

    def __call__(self, lengths: Array) -> int:
        return round(float(self.coefficient @ lengths[self.axes].prod(axis=1)))


@dataclass(frozen=True, slots=True)
class _Constants:
    """Elements of every constant, as a function of the lengths of axes.

    A vector that several nodes share may be cut differently for each: every use that is cut gets a tensor of its own,
    and the uses that lose nothing share one (see constants.cut_names). So a constant is one row or several, one for
    each use that may differ.

    axes: (rows, j) int64, the axes of each row, as in _Products
    owner: (rows,) int64, the number of its constant
    full: (constants,) float64, elements before any cut
    stays: (constants,) bool, whether some reader takes it whole whatever goes
    itemsize: (constants,) float64, bytes of an element
    counted: (constants,) float64, 1 where the elements are parameters, else 0
    """

    axes: Array
    owner: Array
    full: Array
    stays: Array
    itemsize: Array
    counted: Array

    def __call__(self, lengths: Array) -> Array:
        elements = lengths[self.axes].prod(axis=1)
        whole = elements == self.full[self.owner]
        stays = self.stays.copy()
        stays[self.owner[whole]] = True
        return np.bincount(self.owner, np.where(whole, 0, elements), len(stays)) + self.full * stays


@dataclass(frozen=True)
class CostModel:
    """Costs as functions of `kept`, the number of units that each group of `groups.groups` keeps: (groups,) int64.

    MACs count each multiply-accumulate of Conv, ConvTranspose, Gemm, MatMul and Einsum once, at the input sizes of the
    facts. Parameters are the elements of float constants, and of quantised weights and biases, that a node of the main
    graph reads. A vector that several nodes share counts once, and once more for every use that is cut apart.
    The entries of pinned groups are not read.

    groups: of the graph
    units: `kept` of the whole network
    free: one bool a group, whether it may lose units
    """

    groups: ChannelGroups
    units: Array
    free: Array
    _base: Array
    _matrix: csr_array
    _macs: _Products
    _constants: _Constants
    _fixed_params: int

    def macs(self, kept: Array) -> int:
        """Multiply-accumulates of one run."""
        return self._macs(self._lengths(kept))

    def params(self, kept: Array) -> int:
        """Elements of float constants, and of quantised weights and biases."""
        return round(float(self._constants.counted @ self._constants(self._lengths(kept)))) + self._fixed_params

    def weight_bytes(self, kept: Array) -> int:
        """Bytes of all constants that carry labels, whatever their type."""
        return round(float(self._constants.itemsize @ self._constants(self._lengths(kept))))

    def size(self, kept: Array) -> int:
        """Estimated bytes of the model with its weights; what is cut says the shapes of all tensors as well."""
        gone = self.weight_bytes(self.units) - self.weight_bytes(kept)
        return self._file_bytes - gone + (self._shape_bytes if gone else 0)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Array:
        """The number of kept units of each group, given the removed ones by the group's name."""
        return self.units - np.array([len(removed.get(g.name, ())) for g in self.groups.groups], np.int64)

    def _lengths(self, kept: Array) -> Array:
        return self._base + self._matrix @ kept

    @cached_property
    def _file_bytes(self) -> int:
        return file_bytes(self.groups.labelled.graph.source)

    @cached_property
    def _shape_bytes(self) -> int:
        """What saving adds to the file beside the cut: the inferred shapes."""
        source = self.groups.labelled.graph.source
        skeleton = without_weights(source)
        return file_bytes(infer_shapes(skeleton)) - file_bytes(without_weights(source))


def cost_model(groups: ChannelGroups) -> CostModel:
    """Build the cost model of a graph, once for all widths. Linear in the number of labels."""
    labelled = groups.labelled
    table = _AxisTable()
    macs = _Products(np.array([t.coefficient for t in labelled.terms]), table.rows(t.axes for t in labelled.terms))
    constants = _constants(groups, table)
    base, matrix = axis_lengths(table.arrays, groups)
    return CostModel(
        groups=groups,
        units=np.array([g.units for g in groups.groups], np.int64),
        free=np.array([g.pinned is None for g in groups.groups], bool),
        _base=base,
        _matrix=matrix,
        _macs=macs,
        _constants=constants,
        _fixed_params=_unlabelled_params(labelled),
    )


class _AxisTable:
    """The different axes of terms and constants, numbered from 1; 0 is an axis of length 1."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self._numbers: dict[int, int] = {}

    def rows(self, axes: Iterable[Axes]) -> Array:
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


def axis_lengths(arrays: Sequence[Array], groups: ChannelGroups) -> tuple[Array, csr_array]:
    """(base, M) such that base + M @ kept are the lengths of 1, *arrays, as float64: exact up to 2^53."""
    units = np.array([g.units for g in groups.groups], np.int64)
    group_of = np.full(int(groups.component.max(initial=-1)) + 1, -1)
    for number, group in enumerate(groups.groups):
        if group.pinned is None:
            group_of[group.components] = number
    lengths = np.array([1, *(len(a) for a in arrays)], np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    labels = np.concatenate([np.array([-1]), *arrays])
    found = np.where(labels >= 0, group_of[groups.component[labels]], -1) if len(group_of) else np.full(len(labels), -1)
    rows, columns = rows[found >= 0], found[found >= 0]
    shape = (len(lengths), len(units))
    matrix = csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    base = lengths - matrix.sum(axis=1)
    matrix.data /= units[matrix.indices]
    assert not (matrix.data % 1).any(), "units of a group lie differently on an axis"
    return base, matrix


def _constants(groups: ChannelGroups, table: _AxisTable) -> _Constants:
    labelled = groups.labelled
    uses: dict[str, dict[tuple[bytes, ...], ConstantAxes]] = {}
    read: dict[str, set[str]] = {}
    for constant in labelled.constants.values():
        units = tuple(groups.component[axis[axis >= 0]].tobytes() for axis in constant.labels)
        uses.setdefault(constant.name, {}).setdefault(units, constant)
        read.setdefault(constant.name, set()).add(constant.use)
    tensors = labelled.graph.gs.tensors()
    rows = [constant for different in uses.values() for constant in different.values()]
    firsts = [next(iter(different.values())) for different in uses.values()]
    return _Constants(
        axes=table.rows(constant.labels for constant in rows),
        owner=np.repeat(np.arange(len(uses)), [len(different) for different in uses.values()]),
        full=np.array([np.prod([len(axis) for axis in constant.labels]) for constant in firsts], np.float64),
        stays=np.array(["" not in read[name] and not readers(tensors[name]) <= read[name] for name in uses], bool),
        itemsize=np.array([constant.itemsize for constant in firsts], np.float64),
        counted=np.array([c.floating or c.name in labelled.quantised for c in firsts], np.float64),
    )


def _unlabelled_params(labelled: LabelledGraph) -> int:
    """Elements of float constants that no rule asked for, and that so keep their size."""
    with_labels = {name for name, _ in labelled.constants}
    tensors = {t.name: t for node in labelled.graph.gs.nodes for t in node.inputs}
    facts = labelled.facts
    return sum(
        int(np.prod(facts.shapes[name], dtype=np.int64))
        for name, tensor in tensors.items()
        if name not in with_labels and facts.dtypes.get(name) in _FLOATING and constant_values(tensor) is not None
    )
