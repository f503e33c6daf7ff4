"""What a network costs at any widths: exact multiply-accumulates, parameters and bytes, without cutting it.

A node costs coefficient * prod(length of an axis), a constant holds prod(length of an axis) elements. The units of a
group are alike, so the length of every axis is affine in the numbers of kept units: lengths = base + M @ kept, with M
sparse and built once. Everything else is products over these lengths.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from onnx import TensorProto, helper
from scipy.sparse import csr_array

from ..algebra.lengths import AxisTable, Products, affine_lengths
from ..graph.export import infer_shapes
from ..graph.model import constant_values
from ..graph.spill import file_bytes, without_weights
from .constants import readers
from .groups import ChannelGroups
from .labels import ConstantAxes, LabelledGraph
from .vanish.settle import Settled
from .vanish.vanishing import Vanishing

Array = np.ndarray

_FLOATING = frozenset(
    kind
    for name, kind in TensorProto.DataType.items()
    if name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16") or name[:6] == "FLOAT8"
)


@dataclass(frozen=True, slots=True)
class _Constants:
    """Elements of every constant, as a function of the lengths of axes.

    A vector that several nodes share may be cut differently for each: every use that is cut gets a tensor of its own,
    and the uses that lose nothing share one (see constants.cut_names). So a constant is one row or several, one for
    each use that may differ.

    axes: (rows, j) int64, the axes of each row, as in Products
    owner: (rows,) int64, the number of its constant
    uses: (rows,), the uses that each row stands for
    names: (constants,)
    full: (constants,) float64, elements before any cut
    stays: (constants,) bool, whether some reader takes it whole whatever goes
    itemsize: (constants,) float64, bytes of an element
    counted: (constants,) float64, 1 where the elements are parameters, else 0
    """

    axes: Array
    owner: Array
    uses: tuple[frozenset[str], ...]
    names: tuple[str, ...]
    full: Array
    stays: Array
    itemsize: Array
    counted: Array

    def __call__(self, lengths: Array, read: Array, stays: Array) -> Array:
        elements = lengths[self.axes].prod(axis=1) * read
        whole = elements == self.full[self.owner]
        stays = stays.copy()
        stays[self.owner[whole]] = True
        return np.bincount(self.owner, np.where(whole, 0, elements), len(stays)) + self.full * stays


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """What is counted where some groups keep nothing.

    terms: (terms,) bool, those that are left
    rows: (rows,) bool, those of _Constants that are left
    stays: (constants,) bool, those that a reader takes whole
    fixed: parameters without labels
    standing: the constants that stand for what went
    itemsize: of each of them, bytes of an element
    base, matrix: lengths = base + matrix @ kept
    """

    terms: Array
    rows: Array
    stays: Array
    fixed: int
    standing: Products
    itemsize: Array
    base: Array
    matrix: csr_array

    def params(self, kept: Array) -> int:
        return self.standing(self.base + self.matrix @ kept)

    def bytes(self, kept: Array) -> int:
        return self.standing(self.base + self.matrix @ kept, self.itemsize)


@dataclass(frozen=True)
class CostModel:
    """Costs as functions of `kept`, the number of units that each group of `groups.groups` keeps: (groups,) int64.

    MACs count each multiply-accumulate of Conv, ConvTranspose, Gemm, MatMul and Einsum once, at the input sizes of the
    facts. Parameters are the elements of float constants, and of quantised weights and biases, that a node of the main
    graph reads. A vector that several nodes share counts once, and once more for every use that is cut apart.
    Where a group keeps nothing, what goes with it costs nothing (`vanishing`), and the constants that stand for it are
    counted. The entries of pinned groups are not read.

    groups: of the graph
    units: `kept` of the whole network
    free: one bool a group, whether it may lose units
    """

    groups: ChannelGroups
    units: Array
    free: Array
    _base: Array
    _matrix: csr_array
    _macs: Products
    _constants: _Constants
    _fixed: Mapping[str, int]
    _lefts: dict[frozenset[int], _Left] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"CostModel({self.groups!r}, {self.macs(self.units):,} MACs, {self.params(self.units):,} parameters)"

    def macs(self, kept: Array) -> int:
        """Multiply-accumulates of one run."""
        return self._macs(self._lengths(kept), self._left(kept).terms)

    def params(self, kept: Array) -> int:
        """Elements of float constants, and of quantised weights and biases."""
        left = self._left(kept)
        labelled = self._constants.counted @ self._constants(self._lengths(kept), left.rows, left.stays)
        return round(float(labelled)) + left.fixed + left.params(kept)

    def weight_bytes(self, kept: Array) -> int:
        """Bytes of all constants that carry labels, whatever their type."""
        left = self._left(kept)
        labelled = self._constants.itemsize @ self._constants(self._lengths(kept), left.rows, left.stays)
        return round(float(labelled)) + left.bytes(kept)

    @cached_property
    def vanishing(self) -> Vanishing:
        """Which groups may go entirely, and what goes with them."""
        return Vanishing(self.groups)

    def _left(self, kept: Array) -> _Left:
        zero = frozenset(np.flatnonzero(self.free & (kept == 0)).tolist())
        if zero not in self._lefts:
            self._lefts[zero] = self._without(zero) if zero else self._whole()
        return self._lefts[zero]

    def _whole(self) -> _Left:
        c, nothing = self._constants, np.zeros(0)
        terms, rows = np.ones(len(self._macs.coefficient), bool), np.ones(len(c.owner), bool)
        base, matrix = axis_lengths([], self.groups)
        none = Products(nothing, np.zeros((0, 0), np.int64))
        return _Left(terms, rows, c.stays, sum(self._fixed.values()), none, nothing, base, matrix)

    def _without(self, groups: frozenset[int]) -> _Left:
        """Nodes that went compute nothing and read nothing."""
        c, labelled, wiring = self._constants, self.groups.labelled, self.vanishing.wiring
        settled = self.vanishing.settled(groups)

        def read(name: str, uses: Collection[str] = ("",), but: Collection[str] = ()) -> bool:
            numbers = wiring.readers.get(name, ()) if "" in uses else [wiring.maker[use] for use in uses]
            besides = {wiring.maker[use] for use in but}
            return any(n not in settled.gone and n not in besides for n in numbers)

        named: dict[int, set[str]] = {}
        for owner, uses in zip(c.owner.tolist(), c.uses, strict=True):
            named.setdefault(owner, set()).update(uses)
        rows = [read(c.names[owner], uses) for owner, uses in zip(c.owner.tolist(), c.uses, strict=True)]
        stays = [
            bool(whole) and read(name, but=named[i])
            for i, (name, whole) in enumerate(zip(c.names, c.stays, strict=True))
        ]
        return _Left(
            np.array([term.node not in settled.gone for term in labelled.terms], bool),
            np.array(rows, bool),
            np.array(stays, bool),
            sum(elements for name, elements in self._fixed.items() if read(name)),
            *self._standing(settled),
        )

    def _standing(self, settled: Settled) -> tuple[Products, Array, Array, csr_array]:
        """Constants in the places of tensors that nodes read which remain."""
        nodes, facts, axes = self.vanishing.wiring.nodes, self.groups.labelled.facts, self.groups.labelled.axes
        names = list(dict.fromkeys(nodes[n].inputs[i].name for n, at in settled.operands.items() for i in sorted(at)))
        table = AxisTable()
        rows = table.rows(tuple(axes[name][i] for i in sorted(settled.constants[name])) for name in names)
        floating = np.array([facts.dtypes.get(name) in _FLOATING for name in names], np.float64)
        sizes = [helper.tensor_dtype_to_np_dtype(facts.dtypes[name]).itemsize for name in names]
        return Products(floating, rows), np.array(sizes, np.float64), *axis_lengths(table.arrays, self.groups)

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
    table = AxisTable()
    macs = Products(np.array([t.coefficient for t in labelled.terms]), table.rows(t.axes for t in labelled.terms))
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
        _fixed=_unlabelled_params(labelled),
    )


def axis_lengths(arrays: Sequence[Array], groups: ChannelGroups) -> tuple[Array, csr_array]:
    """(base, M) such that base + M @ kept are the lengths of 1, *arrays."""
    group_of = np.full(int(groups.component.max(initial=-1)) + 1, -1)
    for number, group in enumerate(groups.groups):
        if group.pinned is None:
            group_of[group.components] = number
    units = np.array([g.units for g in groups.groups], np.int64)
    return affine_lengths(arrays, group_of[groups.component], units)


def _constants(groups: ChannelGroups, table: AxisTable) -> _Constants:
    labelled = groups.labelled
    uses: dict[str, dict[tuple[bytes, ...], list[ConstantAxes]]] = {}
    read: dict[str, set[str]] = {}
    for constant in labelled.constants.values():
        units = tuple(groups.component[axis[axis >= 0]].tobytes() for axis in constant.labels)
        uses.setdefault(constant.name, {}).setdefault(units, []).append(constant)
        read.setdefault(constant.name, set()).add(constant.use)
    tensors = labelled.graph.gs.tensors()
    rows = [alike for different in uses.values() for alike in different.values()]
    firsts = [next(iter(different.values()))[0] for different in uses.values()]
    return _Constants(
        axes=table.rows(alike[0].labels for alike in rows),
        owner=np.repeat(np.arange(len(uses)), [len(different) for different in uses.values()]),
        uses=tuple(frozenset(constant.use for constant in alike) for alike in rows),
        names=tuple(uses),
        full=np.array([np.prod([len(axis) for axis in constant.labels]) for constant in firsts], np.float64),
        stays=np.array(["" not in read[name] and not readers(tensors[name]) <= read[name] for name in uses], bool),
        itemsize=np.array([constant.itemsize for constant in firsts], np.float64),
        counted=np.array([c.floating or c.name in labelled.quantised for c in firsts], np.float64),
    )


def _unlabelled_params(labelled: LabelledGraph) -> dict[str, int]:
    """Elements of each float constant that no rule asked for, and that so keeps its size."""
    with_labels = {name for name, _ in labelled.constants}
    tensors = {t.name: t for node in labelled.graph.gs.nodes for t in node.inputs}
    facts = labelled.facts
    return {
        name: int(np.prod(facts.shapes[name], dtype=np.int64))
        for name, tensor in tensors.items()
        if name not in with_labels and facts.dtypes.get(name) in _FLOATING and constant_values(tensor) is not None
    }
