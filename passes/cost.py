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
import onnx
from onnx import TensorProto, helper
from scipy.sparse import csr_array

from .channel_groups import ChannelGroups
from .labels import Axes, ConstantAxes, Labels
from .model import constant_values

Array = np.ndarray

_FLOATING = frozenset(
    kind
    for name, kind in TensorProto.DataType.items()
    if name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16") or name[:6] == "FLOAT8"
)
_FOUR_BITS = frozenset((TensorProto.INT4, TensorProto.UINT4))
_TENSOR_OVERHEAD = 16  # bytes of a TensorProto beside name and values: tags, lengths, dimensions; an estimate


@dataclass(frozen=True, slots=True)
class _Products:
    """sum_i coefficient[i] * prod_j lengths[axes[i, j]]; the rows of axes (n, j) are filled up with an axis of 1."""

    coefficient: Array
    axes: Array

    def __call__(self, lengths: Array) -> int:
        return round(float(self.coefficient @ lengths[self.axes].prod(axis=1)))


@dataclass(frozen=True)
class CostModel:
    """Costs as functions of `kept`, int64, one entry a group of `groups.groups`; those of pinned groups are not read.

    units: `kept` of the whole network. MACs count each multiply-accumulate of Conv, ConvTranspose, Gemm, MatMul and
    Einsum once, at the input sizes of the facts. Parameters are the elements of float constants that a node of the
    main graph reads; one that several nodes share counts once, as its first reader has it.
    """

    groups: ChannelGroups
    units: Array
    free: Array
    _base: Array
    _matrix: csr_array
    _macs: _Products
    _params: _Products
    _bytes: _Products
    _fixed_params: int

    def macs(self, kept: Array) -> int:
        """Multiply-accumulates of one run."""
        return self._macs(self._lengths(kept))

    def params(self, kept: Array) -> int:
        """Elements of float constants."""
        return self._params(self._lengths(kept)) + self._fixed_params

    def weight_bytes(self, kept: Array) -> int:
        """Bytes of all constants that carry labels, whatever their type."""
        return self._bytes(self._lengths(kept))

    def size(self, kept: Array) -> int:
        """Estimated bytes of the model with its weights: the original's less those of what goes."""
        return self._file_bytes + self.weight_bytes(kept) - self.weight_bytes(self.units)

    def kept(self, removed: Mapping[str, Sequence[int]]) -> Array:
        """The number of kept units of each group, given the removed ones by the group's name."""
        return self.units - np.array([len(removed.get(g.name, ())) for g in self.groups.groups], np.int64)

    def _lengths(self, kept: Array) -> Array:
        return self._base + self._matrix @ kept

    @cached_property
    def _file_bytes(self) -> int:
        return _serialized_bytes(self.groups.labels.graph.source)


def cost_model(groups: ChannelGroups) -> CostModel:
    """Build the cost model of a graph, once for all widths. Linear in the number of labels."""
    labels = groups.labels
    constants: dict[str, ConstantAxes] = {}
    for constant in labels.constants.values():
        constants.setdefault(constant.name, constant)
    table = _AxisTable()
    macs = table.products([(t.coefficient, t.axes) for t in labels.terms])
    params = table.products([(1, c.labels) for c in constants.values() if c.floating])
    size = table.products([(c.itemsize, c.labels) for c in constants.values()])
    base, matrix = _affine(table.arrays, groups)
    return CostModel(
        groups=groups,
        units=np.array([g.units for g in groups.groups], np.int64),
        free=np.array([g.pinned is None for g in groups.groups], bool),
        _base=base,
        _matrix=matrix,
        _macs=macs,
        _params=params,
        _bytes=size,
        _fixed_params=_unlabelled_params(labels, constants),
    )


class _AxisTable:
    """The different axes of terms and constants, numbered from 1; 0 is an axis of length 1."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self._numbers: dict[int, int] = {}

    def products(self, rows: Iterable[tuple[float, Axes]]) -> _Products:
        rows = list(rows)
        numbers = np.zeros((len(rows), max((len(axes) for _, axes in rows), default=0)), np.int64)
        for i, (_, axes) in enumerate(rows):
            numbers[i, : len(axes)] = [self._number(a) for a in axes]
        return _Products(np.array([coefficient for coefficient, _ in rows], np.float64), numbers)

    def _number(self, axis: Array) -> int:
        if id(axis) not in self._numbers:
            self.arrays.append(axis)
            self._numbers[id(axis)] = len(self.arrays)
        return self._numbers[id(axis)]


def _affine(arrays: Sequence[Array], groups: ChannelGroups) -> tuple[Array, csr_array]:
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


def _unlabelled_params(labels: Labels, labelled: Mapping[str, ConstantAxes]) -> int:
    """Elements of float constants that no rule asked for, and that so keep their size."""
    tensors = {t.name: t for node in labels.graph.gs.nodes for t in node.inputs}
    facts = labels.facts
    return sum(
        int(np.prod(facts.shapes[name], dtype=np.int64))
        for name, tensor in tensors.items()
        if name not in labelled and facts.dtypes.get(name) in _FLOATING and constant_values(tensor) is not None
    )


def _serialized_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the model in one file. Weights are not serialised for it, which takes seconds a GB and ends at 2 GiB."""
    graph = model.graph
    weights = sum(_tensor_bytes(tensor) for tensor in graph.initializer)
    rest = [*graph.node, *graph.input, *graph.output, *graph.value_info, *model.metadata_props]
    return weights + sum(part.ByteSize() + 3 for part in rest)  # 3: a tag, and a length in two bytes


def _tensor_bytes(tensor: TensorProto) -> int:
    if not tensor.HasField("raw_data"):
        return tensor.ByteSize()
    bits = 4 if tensor.data_type in _FOUR_BITS else 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(np.prod(tensor.dims, dtype=np.int64)) * bits // 8 + len(tensor.name) + _TENSOR_OVERHEAD
