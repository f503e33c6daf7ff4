"""Control flow that goes the same way in every run is written out: loops of a few rounds, branches, sequences.

torch.tensor_split, chunk and lists of tensors come out of exporters as such, and no channel is known behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from .bodies import bodies, constants_of, goes_on, read_names, taken_names
from .mapped import is_external
from .names import Names

_MOST_ROUNDS = 64  # of a loop
_MOST_NODES = 1 << 12  # that a graph may grow by
_SMALL = 64  # elements of a constant that says where the flow goes
_SEQUENCES = frozenset({"SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence"})
_FLOW = _SEQUENCES | {"Loop", "If", "SequenceAt", "SequenceLength", "ConcatFromSequence"}
_LISTED = 13  # the opset from which axes and sizes are inputs
_DEFAULTS = 4  # the version of ONNX from which an initializer that is listed as an input is its default alone


def unrolled(model: onnx.ModelProto, known: Mapping[str, np.ndarray] = MappingProxyType({})) -> onnx.ModelProto:
    """The model, or a copy that computes the same without control flow that is the same in every run.

    known: numbers of tensors that are computed, and the same in every run.
    A Loop whose rounds are a constant up to 64, an If whose condition is a constant, and what takes a known part of a
    known sequence become plain nodes.
    """
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _LISTED or not any(node.op_type in _FLOW for node in model.graph.node):
        return model
    given = {value.name for value in model.graph.input} if model.ir_version >= _DEFAULTS else set()
    constants = {name: tensor for name, tensor in constants_of(model.graph).items() if name not in given}
    constants |= {name: numpy_helper.from_array(array) for name, array in known.items()}
    flow = _Flow(Names(taken_names(model.graph)), constants, len(model.graph.node) + _MOST_NODES)
    for node in model.graph.node:
        flow.put(node)
    if not flow.changed:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.output:
        if value.name in flow.alias:
            flow.nodes.append(helper.make_node("Identity", [flow.alias[value.name]], [value.name]))
    del copy.graph.node[:]
    copy.graph.node.extend(_read_ones(flow.nodes, {value.name for value in copy.graph.output}))
    read = set().union(*(read_names(node) for node in copy.graph.node))
    copy.graph.initializer.extend(tensor for tensor in flow.initializers if tensor.name in read)
    return copy


@dataclass(slots=True)
class _Flow:
    """What has been written out so far.

    constants: of the graph, by name
    most: nodes that the graph may have in the end; past them the rest stays as it is
    alias: a name that nothing makes any more -> the tensor that it stands for
    sequences: name -> the tensors in it
    """

    names: Names
    constants: dict[str, TensorProto]
    most: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, list[str]] = field(default_factory=dict)
    changed: bool = False

    def put(self, node: onnx.NodeProto) -> None:
        """Append a node, or what it comes to."""
        node = _renamed(node, self.alias)
        known = node.op_type in _FLOW and node.domain in ("", "ai.onnx")
        write = getattr(self, f"_{node.op_type}", None) if known else None
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            self.constants[node.output[0]] = node.attribute[0].t
        if write is not None and len(self.nodes) < self.most and write(node):
            self.changed = True
        else:
            self.nodes.append(node)

    def _value(self, name: str) -> np.ndarray | None:
        """The numbers of a small constant."""
        tensor = self.constants.get(name)
        if tensor is None or is_external(tensor) or np.prod(tensor.dims) > _SMALL:
            return None
        return numpy_helper.to_array(tensor)

    def _number(self, name: str) -> int | None:
        value = self._value(name)
        return None if value is None or value.size != 1 else int(value.reshape(-1)[0])

    def _constant(self, stem: str, value: np.ndarray) -> str:
        tensor = numpy_helper.from_array(value, self.names.fresh(stem))
        self.initializers.append(tensor)
        self.constants[tensor.name] = tensor
        return tensor.name

    def _weights(self, body: onnx.GraphProto) -> dict[str, str]:
        """Bring the constants of a body into the graph, once for all rounds; what they are called there."""
        names = {}
        for name, tensor in constants_of(body).items():
            brought = TensorProto()
            brought.CopyFrom(tensor)
            brought.name = names[name] = self.names.fresh(name)
            self.initializers.append(brought)
            self.constants[brought.name] = brought
        return names

    def _body(self, body: onnx.GraphProto, given: Mapping[str, str]) -> list[str]:
        """Write a body out, with these tensors for its inputs and constants; the tensors that its outputs are."""
        names = dict(given)
        for node in body.node:
            if node.output and node.output[0] in given:  # a Constant
                continue
            inside = _renamed(node, names)
            for i, output in enumerate(node.output):
                if output:
                    names[output] = inside.output[i] = self.names.fresh(output)
            self.put(inside)
        return [self.alias.get(name, name) for name in (names.get(v.name, v.name) for v in body.output)]

    def _If(self, node: onnx.NodeProto) -> bool:
        condition = self._number(node.input[0])
        if condition is None or any(b.sparse_initializer for b in bodies(node)):
            return False
        chosen = "then_branch" if condition else "else_branch"
        body = next(a.g for a in node.attribute if a.name == chosen)
        self._becomes(node.output, self._body(body, self._weights(body)))
        return True

    def _Loop(self, node: onnx.NodeProto) -> bool:
        rounds = self._number(node.input[0])
        body = next(bodies(node))
        carried = list(node.input[2:])
        scanned = len(body.output) - 1 - len(carried)
        if len(node.input) < 2 or rounds is None or not 0 < rounds <= _MOST_ROUNDS or not goes_on(node, self.constants):
            return False
        if rounds * len(body.node) > _MOST_NODES or body.sparse_initializer or not all(carried):
            return False
        # ONNX Runtime gives the count and the condition the rank with which a body declares them: 0, or 1.
        ranks = [[1] * len(value.type.tensor_type.shape.dim) for value in body.input[:2]]
        true = self._constant("goes_on", np.ones(ranks[1], bool))
        rows: list[list[str]] = [[] for _ in range(scanned)]
        held = self._weights(body)
        for index in range(rounds):
            count = self._constant("round", np.full(ranks[0], index, np.int64))
            given = [count, true, *carried]
            made = self._body(body, held | dict(zip((v.name for v in body.input), given, strict=True)))
            carried = made[1 : 1 + len(carried)]
            for row, name in zip(rows, made[1 + len(carried) :], strict=True):
                row.append(name)
        self._becomes(node.output, [*carried, *(self._stacked(row) for row in rows)])
        return True

    def _stacked(self, tensors: Sequence[str]) -> str:
        """What a loop makes of an output of each round: one more axis in front."""
        first = self._constant("first", np.array([0], np.int64))
        rows = [self.names.fresh(f"{name}_row") for name in tensors]
        for name, row in zip(tensors, rows, strict=True):
            self.nodes.append(helper.make_node("Unsqueeze", [name, first], [row]))
        stacked = self.names.fresh(f"{tensors[0]}_rows")
        self.nodes.append(helper.make_node("Concat", rows, [stacked], axis=0))
        return stacked

    def _becomes(self, outputs: Sequence[str], tensors: Sequence[str]) -> None:
        for output, name in zip(outputs, tensors, strict=False):
            if output:
                self.alias[output] = name
                if name in self.sequences:
                    self.sequences[output] = self.sequences[name]

    def _SequenceEmpty(self, node: onnx.NodeProto) -> bool:
        self.sequences[node.output[0]] = []
        return False

    def _SequenceConstruct(self, node: onnx.NodeProto) -> bool:
        self.sequences[node.output[0]] = list(node.input)
        return False

    def _SequenceInsert(self, node: onnx.NodeProto) -> bool:
        held = self.sequences.get(node.input[0])
        placed = len(node.input) > 2 and bool(node.input[2])
        at = self._number(node.input[2]) if placed else len(held or ())
        if held is not None and at is not None and -len(held) <= at <= len(held):
            at += len(held) if at < 0 else 0
            self.sequences[node.output[0]] = [*held[:at], node.input[1], *held[at:]]
        return False

    def _SplitToSequence(self, node: onnx.NodeProto) -> bool:
        sizes = self._value(node.input[1]) if len(node.input) > 1 else None
        if sizes is not None and sizes.ndim == 1:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            parts = [self.names.numbered(node.output[0]) for _ in sizes]
            split = self._constant(f"{node.output[0]}_sizes", sizes.astype(np.int64))
            self.nodes.append(helper.make_node("Split", [node.input[0], split], parts, axis=axis))
            self.sequences[node.output[0]] = parts
        return False

    def _SequenceAt(self, node: onnx.NodeProto) -> bool:
        held, at = self.sequences.get(node.input[0]), self._number(node.input[1])
        if held is None or at is None or not -len(held) <= at < len(held):
            return False
        self._becomes(node.output, [held[at]])
        return True

    def _SequenceLength(self, node: onnx.NodeProto) -> bool:
        held = self.sequences.get(node.input[0])
        if held is None:
            return False
        self._becomes(node.output, [self._constant(f"{node.output[0]}_known", np.array(len(held), np.int64))])
        return True

    def _ConcatFromSequence(self, node: onnx.NodeProto) -> bool:
        held = self.sequences.get(node.input[0])
        values = {a.name: a.i for a in node.attribute}
        if not held or values.get("new_axis"):
            return False
        self.nodes.append(helper.make_node("Concat", held, list(node.output), node.name, axis=values["axis"]))
        return True


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads other tensors, in its bodies as well; what a body makes itself hides a name around it."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for i, name in enumerate(copy.input):
        copy.input[i] = names.get(name, name)
    for attribute in copy.attribute:
        for body in (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            own = {t.name for t in (*body.input, *body.initializer)} | {o for n in body.node for o in n.output}
            inner = {old: new for old, new in names.items() if old not in own}
            nodes = [_renamed(n, inner) for n in body.node]
            del body.node[:]
            body.node.extend(nodes)
            for value in body.output:
                value.name = inner.get(value.name, value.name)
    return copy


def _read_ones(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes less the sequences, and parts of them, that nothing reads any more."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if node.op_type not in _SEQUENCES | {"Split", "Constant"} or not read.isdisjoint(node.output):
            read |= read_names(node)
            kept.append(node)
    return kept[::-1]
