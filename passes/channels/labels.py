"""What the sweep over a graph finds: channel labels, and what is said about them; docs/architecture.md tells the idea.

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
    """The labels of one constant (or of one use of it, where a small vector is shared by several readers).

    name: the constant; use: "" or the output name of the reading node; labels: one array an axis.
    """

    name: str
    use: str
    labels: Axes
    itemsize: float
    floating: bool


@dataclass(frozen=True, slots=True)
class Split:
    """An axis whose index i stands for (i1, ..., ik): `flat` is k-dimensional, `axes` are the labels of the k axes.

    At most one of the k axes can lose entries if the array is to stay rectangular; which one is decided in the solve.
    """

    flat: Array
    axes: Axes
    where: str


@dataclass(frozen=True, slots=True)
class Mask:
    """A contraction of two activations: the proof silences it by zeros in this input, along this axis."""

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
    """coefficient * product of the number of kept indices of each axis: multiply-accumulates of one node."""

    node: int
    coefficient: float
    axes: Axes


@dataclass(slots=True)
class Labels:
    """What the sweep found. Every array holds labels; `count` is the number of labels >= 0."""

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
    joined: list[tuple[Array, Array]] = field(default_factory=list)  # one axis of constants that a Concat joins
    masks: list[Mask] = field(default_factory=list)
    coupled: list[tuple[int, Array]] = field(default_factory=list)  # (node, labels): see Sweep.couple
    zeros: dict[str, Array] = field(default_factory=dict)  # constant -> its zero point, where that is not 0
    quantised: set[str] = field(default_factory=set)  # integer constants that are parameters
    consumers: list[Consumer] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    notes: dict[int, Axes] = field(default_factory=dict)
    frozen: dict[tuple[int, int], tuple[Array, ...]] = field(default_factory=dict)
    kinds: dict[str, Array] = field(default_factory=dict)
    depends: dict[str, tuple[Array, ...]] = field(default_factory=dict)
