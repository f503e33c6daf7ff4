"""Nodes on their own at many widths, timed in small graphs that keep the layout that they have in the whole one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

from ...passes.channels.cost import axis_lengths
from ...passes.channels.groups import ChannelGroups
from ...passes.channels.labels import Consumer, LabelledGraph, Layout
from ...passes.graph.model import constant_values
from ..device import Device
from .profile import BLOCKED, LONGER, profile

Widths = tuple[int, int]
_FIXED, _READS, _WRITES = "", "r", "w"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_MOST_NODES = 250  # in one graph
_SECONDS = 0.3  # to run a graph for, each turn
_TURNS, _USUAL_TURNS, _AGREE = 5, 2, 1.06
_NAME, _VALUE = "piece", 0.01
_POOLED_RANK = 4  # GlobalAveragePool keeps the blocked layout


@dataclass(frozen=True, slots=True)
class PieceInput:
    """An input of a piece: its whole shape, and the width that each axis follows: "r", "w", or "" for none."""

    shape: tuple[int, ...]
    follows: tuple[str, ...]
    constant: bool
    dtype: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A node as a function of the widths that it reads and writes; nodes that are alike have equal pieces.

    whole: the two widths in the whole network; a convolution that loses whole groups follows the second width alone,
        and the first is 1
    rank: of what it writes
    """

    op: str
    attributes: tuple[tuple[str, Any], ...]
    operands: tuple[PieceInput, ...]
    rank: int
    whole: Widths

    @property
    def key(self) -> str:
        """Says everything that the time depends on but the widths."""
        operands = ";".join(f"{o.shape}{o.follows}{o.dtype}" for o in self.operands)
        return f"{self.op} {self.attributes} {operands}"

    def shape(self, operand: PieceInput, widths: Widths) -> tuple[int, ...]:
        """At these widths: an axis that follows one keeps its share of it."""
        scale = {_FIXED: (1, 1), _READS: (widths[0], self.whole[0]), _WRITES: (widths[1], self.whole[1])}
        pairs = [(n, *scale[mark]) for n, mark in zip(operand.shape, operand.follows, strict=True)]
        return tuple(max(1, n * now // whole) for n, now, whole in pairs)

    def attributes_at(self, widths: Widths) -> dict[str, Any]:
        """With as many groups as are left."""
        attributes = dict(self.attributes)
        if attributes.get("group", 1) > self.narrowing:
            attributes["group"] = max(1, attributes["group"] * widths[1] // self.whole[1])
        return attributes

    @property
    def narrowing(self) -> int:
        """Groups of a convolution whose groups become narrower; 1 where there are none, or where whole ones go."""
        return dict(self.attributes).get("group", 1) if self.whole[0] > 1 else 1

    @property
    def positions(self) -> int:
        """Elements of the data for each channel that is read."""
        return math.prod(self.operands[0].shape) // self.whole[0]

    def bytes(self, widths: Widths) -> int:
        """Of the weights."""
        return 4 * sum(math.prod(self.shape(operand, widths)) for operand in self.operands if operand.constant)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where pieces are timed.

    bytes: of weights in one graph: as many as the network has, so that they come from the same cache, or from memory.
    """

    opset: int
    bytes: int
    device: Device = "auto"
    threads: int | None = 1


def pieces(groups: ChannelGroups) -> dict[int, Piece]:
    """Of each node that multiplies float data with constant weights, by its number."""
    labelled = groups.labelled
    consumers = {consumer.node: consumer for consumer in labelled.consumers}
    found = {}
    for number in dict.fromkeys(term.node for term in labelled.terms):
        node = labelled.graph.gs.nodes[number]
        consumer = consumers.get(number)
        layout = None if consumer is None else consumer.layout
        if not _is_plain(labelled, node):
            continue
        piece = _grouped(groups, number) if int(node.attrs.get("group", 1)) > 1 else None
        if piece is None and consumer is not None and layout is not None and layout.out is not None:
            piece = _contraction(labelled, consumer, layout)
        if piece is not None:
            found[number] = piece
    return found


def _is_plain(labelled: LabelledGraph, node: gs.Node) -> bool:
    """A standard operator on floats: data first, constants after them, plain attributes."""
    facts = labelled.facts
    names = [tensor.name for tensor in (*node.inputs, node.outputs[0])]
    known = all(name in facts.shapes and facts.dtypes.get(name) in _FLOATS for name in names)
    constants = [constant_values(tensor) is not None for tensor in node.inputs]
    simple = all(isinstance(value, int | float | str | list) for value in node.attrs.values())
    return known and simple and not node.domain and constants[:1] == [False] and all(constants[1:])


def _contraction(labelled: LabelledGraph, consumer: Consumer, layout: Layout) -> Piece:
    """The summed axis of data and weight follows what is read; the weight's outputs and the bias what is written."""
    node, facts = labelled.graph.gs.nodes[consumer.node], labelled.facts
    written = facts.shapes[node.outputs[0].name][layout.result]
    marks = [[_FIXED] * len(facts.shapes[tensor.name]) for tensor in node.inputs]
    for place in (consumer.data_at, consumer.weight_at):
        marks[place.input][place.axis] = _READS
    assert layout.out is not None, "a contraction with a vector has no width to write"
    marks[consumer.weight_at.input][layout.out] = _WRITES
    if layout.bias is not None and layout.bias < len(marks) and marks[layout.bias]:
        last = len(marks[layout.bias]) - 1
        if facts.shapes[node.inputs[layout.bias].name][last] == written:
            marks[layout.bias][last] = _WRITES
    read = facts.shapes[consumer.data][consumer.data_at.axis]
    return _make(labelled, node, marks, (read, written))


def _grouped(groups: ChannelGroups, number: int) -> Piece | None:
    """A convolution that loses whole groups: everything follows what is written. None where groups become narrower."""
    labelled = groups.labelled
    node, shapes = labelled.graph.gs.nodes[number], labelled.facts.shapes
    weight = labelled.constants.get((node.inputs[1].name, "")) if len(node.inputs) > 1 else None
    if weight is None or axis_lengths([weight.labels[1]], groups)[1].nnz:
        return None
    marks = [[_FIXED] * len(shapes[tensor.name]) for tensor in node.inputs]
    marks[0][1] = marks[1][0] = _WRITES
    for mark in marks[2:]:
        mark[0] = _WRITES
    return _make(labelled, node, marks, (1, shapes[node.outputs[0].name][1]))


def _make(labelled: LabelledGraph, node: gs.Node, marks: Sequence[Sequence[str]], whole: Widths) -> Piece:
    facts = labelled.facts
    operands = tuple(
        PieceInput(tuple(facts.shapes[tensor.name]), tuple(mark), position > 0, facts.dtypes[tensor.name])
        for position, (tensor, mark) in enumerate(zip(node.inputs, marks, strict=True))
    )
    attributes = tuple(sorted((name, _frozen(value)) for name, value in node.attrs.items()))
    return Piece(node.op, attributes, operands, len(facts.shapes[node.outputs[0].name]), whole)


def _frozen(value: Any) -> Any:  # noqa: ANN401 - an attribute of a node
    return tuple(value) if isinstance(value, list) else value


def time_pieces(
    wanted: Mapping[Piece, Sequence[Widths]],
    bench: Bench,
    *,
    progress: Callable[[float], None] = lambda share: None,
    until: float = math.inf,
) -> tuple[dict[Piece, dict[Widths, float]], set[Piece]]:
    """Pieces with their milliseconds at these widths, as many as can be timed until then (`time.perf_counter`).

    The second value are those whose times were confirmed. Graph by graph, all of them in turns: what else the machine
    does may disturb every run of one turn. A graph is timed again until its two best turns agree, twice at least where
    there is time.
    """
    graphs = [_Timed(chunk, {(p, w): [] for p in chunk for w in wanted[p]}) for chunk in _chunks(wanted, bench.bytes)]
    for turn in range(_TURNS):
        waiting = [graph for graph in graphs if not graph.settled]
        for number, graph in enumerate(waiting):
            left = until - time.perf_counter()
            if left < 0:
                break
            share = left / (len(waiting) - number + (len(graphs) if turn == 0 else 0))  # two turns where there is time
            graph.take_turn(bench, min(_SECONDS, share / LONGER))
            progress(min(1.0, (turn + (number + 1) / len(waiting)) / _USUAL_TURNS))
    settled = {piece for graph in graphs if graph.settled for piece in graph.pieces}
    return {
        p: {w: graph.best(p, w) for w in wanted[p]} for graph in graphs if graph.turns for p in graph.pieces
    }, settled


@dataclass(slots=True)
class _Timed:
    """Pieces that are timed in one graph. times: of each at each width, one a turn."""

    pieces: Sequence[Piece]
    times: dict[tuple[Piece, Widths], list[float]]
    turns: int = 0

    def take_turn(self, bench: Bench, seconds: float) -> None:
        model, feeds = _graph(list(self.times), bench.opset)
        nodes = profile(model, feeds, seconds=seconds, device=bench.device, threads=bench.threads)
        found = {node.name.removesuffix(BLOCKED): node.ms for node in nodes}
        for number, taken in enumerate(self.times.values()):
            taken.append(found.get(f"{_NAME}{number}", 0.0))
        self.turns += 1

    def best(self, piece: Piece, widths: Widths) -> float:
        return min(self.times[piece, widths])

    @property
    def settled(self) -> bool:
        """Whether two turns say the same."""
        if self.turns < 2:
            return False
        best, second = (sum(sorted(taken)[place] for taken in self.times.values()) for place in (0, 1))
        return second <= _AGREE * best


def _chunks(wanted: Mapping[Piece, Sequence[Widths]], size: int) -> list[list[Piece]]:
    """Pieces whose graphs have about so many bytes of weights, none much fewer; one piece is never divided."""
    bytes_of = {piece: sum(piece.bytes(widths) for widths in pairs) for piece, pairs in wanted.items()}
    most = max(sum(bytes_of.values()) / size, sum(map(len, wanted.values())) / _MOST_NODES)
    chunks: list[list[Piece]] = [[] for _ in range(max(1, min(round(most), len(wanted))))]
    filled = [0] * len(chunks)
    for piece in sorted(wanted, key=lambda piece: -bytes_of[piece]):
        least = filled.index(min(filled))
        chunks[least].append(piece)
        filled[least] += bytes_of[piece]
    return [chunk for chunk in chunks if chunk]


def _graph(pairs: Sequence[tuple[Piece, Widths]], opset: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """All of them in one graph, each between a node that writes its data just before and one that reads its result.

    So data are in the caches as in a network, and in the blocked layout where a convolution reads it.
    """
    build = _Build()
    for number, (piece, widths) in enumerate(pairs):
        build.add(f"{_NAME}{number}", piece, widths)
    graph = helper.make_graph(build.nodes, "pieces", list(build.inputs.values()), build.outputs, build.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), build.feeds


@dataclass(slots=True)
class _Build:
    """A graph on its way; inputs of equal shape are one."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    inputs: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, piece: Piece, widths: Widths) -> None:
        shapes = [piece.shape(operand, widths) for operand in piece.operands]
        operands = [self._data(name, shapes[0], piece.operands[0].dtype)]
        for position, (operand, shape) in enumerate(zip(piece.operands[1:], shapes[1:], strict=True), 1):
            operands.append(f"{name}_{position}")
            self.weights.append(numpy_helper.from_array(_filled(shape, operand.dtype), operands[-1]))
        self.nodes.append(helper.make_node(piece.op, operands, [name], name, **piece.attributes_at(widths)))
        result = name
        if piece.rank == _POOLED_RANK:
            result = f"{name}_mean"
            self.nodes.append(helper.make_node("GlobalAveragePool", [name], [result], result))
        self.outputs.append(helper.make_tensor_value_info(result, piece.operands[0].dtype, None))

    def _data(self, name: str, shape: tuple[int, ...], dtype: int) -> str:
        given, read = f"x{dtype}_{'_'.join(map(str, shape))}", f"{name}_data"
        if given not in self.inputs:
            self.inputs[given] = helper.make_tensor_value_info(given, dtype, shape)
            self.feeds[given] = _filled(shape, dtype)
        if len(shape) == _POOLED_RANK:
            self.nodes.append(helper.make_node("MaxPool", [given], [read], read, kernel_shape=[1, 1]))
        else:
            self.nodes.append(helper.make_node("Relu", [given], [read], read))
        return read


def _filled(shape: tuple[int, ...], dtype: int) -> np.ndarray:
    return np.full(shape, _VALUE, helper.tensor_dtype_to_np_dtype(dtype))
