"""The labelled graph: channel labels of every axis, and what is said about them; docs/architecture.md tells the idea.

Every axis of a tensor is an integer array of labels. A label >= 0 belongs to a channel that may be removed; a negative
one marks positions that are no channels (batch, space, a graph input). Nothing is solved here: see `groups.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ..graph.model import Graph
from ..graph.shapes import Facts

Array = np.ndarray
Axes = tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class ConstantAxes:
    """The labels of one constant, or of one use of it where a small vector is read by several nodes.

    name: of the constant
    use: "" or the output name of the node that reads it
    labels: one array an axis
    itemsize: bytes of an element
    floating: whether its elements are floats
    """

    name: str
    use: str
    labels: Axes
    itemsize: float
    floating: bool


@dataclass(frozen=True, slots=True)
class Split:
    """An axis whose index i stands for (i1, ..., ik).

    At most one of the k axes can lose entries if the array is to stay rectangular; which one is decided in the solve.

    flat: k-dimensional, the labels of the one axis
    axes: the labels of the k axes
    where: the name of the node
    """

    flat: Array
    axes: Axes
    where: str


@dataclass(frozen=True, slots=True)
class Mask:
    """A contraction of two activations: the proof silences it by zeros in an input.

    node: its number
    input: which of its inputs
    axis: along which axis of that
    """

    node: int
    input: int
    axis: int


class Operand(NamedTuple):
    """The axis of an input that a node sums over."""

    input: int
    axis: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a contraction y = W u + b keeps its weight and says its result.

    out: the weight's axis of outputs, None where it has none (a vector)
    result: the axis of y that it becomes
    groups: inputs and outputs lie group by group, and each group has weights of its own
    bias: the input that holds b, None where the operator has none
    window: what a kernel does along the weight's other axes, None where nothing slides; see `algebra.im2col`
    exact: whether the node's output is y itself, not a multiple or a function of it
    """

    out: int | None
    result: int
    groups: int = 1
    bias: int | None = None
    window: Literal["convolution", "transposed"] | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Consumer:
    """A contraction with a constant weight: y = sum over the labelled axis of data * weight.

    node: its number
    data, weight: names of the tensors that it reads
    labels: of the data's axis
    data_at, weight_at: where the node reads them, and the axis that is summed over
    layout: where the rest of the weight is; None for a form of its own (Einsum, recurrent networks)
    """

    node: int
    data: str
    weight: str
    labels: Array
    data_at: Operand
    weight_at: Operand
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """Multiply-accumulates of a node: coefficient * the product of the numbers of kept indices of each axis.

    node: its number
    coefficient: multiply-accumulates an element of the product
    axes: their labels
    """

    node: int
    coefficient: float
    axes: Axes


@dataclass(slots=True)
class LabelledGraph:
    """A graph whose axes carry channel labels, and all that its rules said of these labels: what the sweep returns.

    An axis is an int64 array, one label an index; every array below holds labels. A node is its number in `graph`.

    graph: what was labelled, left as it is
    facts: its shapes, types and small values
    count: how many labels are >= 0; they are 0, ..., count - 1
    axes: tensor -> one axis a dimension, of graph inputs and of what nodes make
    constants: (constant, use) -> the axes of a constant; see ConstantAxes
    ties: pairs of arrays of one length that are equal index by index
    pins: labels that must stay, and the reason
    splits: axes that stand for several; solved in splits.py
    produced: a node, and the labels of its weight's rows that make the channels of its output
    consumed: axes of constants that a node sums over: what the proof zeroes
    joined: the same axis of the first and of another constant that a Concat joins
    masks: axes of activations that a node sums over: what the proof masks
    coupled: a node, and labels that its statistics run over; they may go (--inexact)
    zeros: constant -> its zero point, which broadcasts to it, where that is not 0
    quantised: integer constants that are parameters
    consumers: contractions with a constant weight, in the order of the graph
    terms: multiply-accumulates of the nodes as products of axes
    notes: node -> the axes that its rule noted for its rewrite
    frozen: (node, input) -> the axes whose sizes are read there as data: that input keeps its values
    kinds: tensor -> uint8, as its values: bits of values.TAINTED and DYNAMIC
    depends: tensor -> the axes whose sizes its values are computed from
    marks: tensor -> for each of these, uint8 as its values: which of them
    misfits: nodes that their rules could not take, and why, in words
    """

    graph: Graph
    facts: Facts
    count: int = 0
    axes: dict[str, Axes] = field(default_factory=dict)
    constants: dict[tuple[str, str], ConstantAxes] = field(default_factory=dict)
    ties: list[tuple[Array, Array]] = field(default_factory=list)
    pins: list[tuple[Array, str]] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    produced: list[tuple[int, Array]] = field(default_factory=list)
    consumed: list[Array] = field(default_factory=list)
    joined: list[tuple[Array, Array]] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    coupled: list[tuple[int, Array]] = field(default_factory=list)
    zeros: dict[str, Array] = field(default_factory=dict)
    quantised: set[str] = field(default_factory=set)
    consumers: list[Consumer] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    notes: dict[int, Axes] = field(default_factory=dict)
    frozen: dict[tuple[int, int], Axes] = field(default_factory=dict)
    kinds: dict[str, Array] = field(default_factory=dict)
    depends: dict[str, Axes] = field(default_factory=dict)
    marks: dict[str, Axes] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"LabelledGraph({self.graph!r}, {self.count} labels)"
