"""Which node of a model, and which of its tensors, a node of the graph that ONNX Runtime makes of it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ...passes.channels.cost import axis_lengths
from ...passes.channels.groups import ChannelGroups
from ...passes.channels.labels import LabelledGraph
from .pieces import Piece, pieces
from .profile import BLOCKED, NodeTime

Array = np.ndarray
_FARTHEST = 6  # nodes that are fused behind one
_TOKEN = re.compile(r"_token_\d+$")  # is added to the names of quantised nodes


@dataclass(frozen=True, slots=True)
class Width:
    """The length of an axis, base + row @ kept."""

    base: int
    row: Array
    full: int


@dataclass(frozen=True, slots=True)
class Matched:
    """A node of the optimised graph: what it takes, and by which widths.

    reads, writes: None where there is none that moves
    piece: what it is on its own, None where its time is taken to be proportional to both
    blocked: whether it writes in the blocked layout
    """

    name: str
    op: str
    ms: float
    reads: Width | None
    writes: Width | None
    piece: Piece | None
    blocked: bool


def match(groups: ChannelGroups, model: onnx.ModelProto, times: Sequence[NodeTime]) -> list[Matched]:
    """Each node of the optimised graph; model: what was optimised, its nodes named."""
    labelled = groups.labelled
    tensors = _tensors(model, times, set(labelled.axes))
    maker = {t.name: number for number, node in enumerate(labelled.graph.gs.nodes) for t in node.outputs}
    found, own, taken = [], pieces(groups), set()
    working = {term.node for term in labelled.terms}
    widths = _Widths(groups)
    for one, tensor in zip(times, tensors, strict=True):
        number = _work(labelled, maker, working - taken, tensor) if one.weighted and tensor else None
        blocked = one.op.startswith("nchwc.") or not any(name in labelled.axes for name in one.outputs)
        if number is None:
            found.append(Matched(one.name, one.op, one.ms, None, widths.of_tensor(tensor), None, blocked))
            continue
        taken.add(number)
        reads, writes = widths.of_work(number)
        found.append(Matched(one.name, one.op, one.ms, reads, writes, own.get(number), blocked))
    return found


def _tensors(model: onnx.ModelProto, times: Sequence[NodeTime], known: set[str]) -> list[str | None]:
    """Of each node the tensor of the model that it writes, in whatever layout; else that which it reads."""
    first = {node.name: node.output[0] for node in model.graph.node}
    stands: dict[str, str] = {}
    found: list[str | None] = []
    for one in times:
        plain = _TOKEN.sub("", one.name)
        named = (
            one.name.removesuffix(BLOCKED),
            *(first.get(name) for name in (one.name, plain, plain.partition("/")[0])),
        )
        read = (stands.get(name, name) for name in one.inputs)
        tensor = next((name for name in (*one.outputs, *named, *read) if name in known), None)
        if tensor is not None:
            stands |= dict.fromkeys(one.outputs, tensor)
        found.append(tensor)
    return found


def _work(labelled: LabelledGraph, maker: dict[str, int], working: set[int], tensor: str) -> int | None:
    """The node that multiplies and from which the tensor comes by what is fused with it."""
    waiting = [tensor]
    for _ in range(_FARTHEST):
        following = []
        for name in waiting:
            number = maker.get(name)
            if number is None:
                continue
            if number in working:
                return number
            following += [t.name for t in labelled.graph.gs.nodes[number].inputs]
        waiting = following
    return None


class _Widths:
    """Widths of tensors and nodes, as functions of what is kept."""

    def __init__(self, groups: ChannelGroups) -> None:
        self.groups = groups
        self.labelled = groups.labelled
        self.consumers = {consumer.node: consumer for consumer in self.labelled.consumers}

    def of_tensor(self, name: str | None) -> Width | None:
        """Of the axis of a tensor that can lose most."""
        axes = () if name is None else self.labelled.axes.get(name, ())
        return self._widest(axes)

    def of_work(self, number: int) -> tuple[Width | None, Width | None]:
        consumer = self.consumers.get(number)
        node = self.labelled.graph.gs.nodes[number]
        written = self.of_tensor(node.outputs[0].name)
        if consumer is not None:
            return self._widest([consumer.labels]), written
        read = self.labelled.axes.get(node.inputs[0].name, ())
        groups = int(node.attrs.get("group", 1))
        return (None if groups > 1 else self._widest(read)), written

    def _widest(self, axes: Sequence[Array]) -> Width | None:
        if not len(axes):
            return None
        base, matrix = axis_lengths(axes, self.groups)
        rows = matrix.toarray()[1:]
        moved = [len(a) - b for a, b in zip(axes, base[1:], strict=True)]
        best = int(np.argmax(moved))
        if not rows[best].any():
            return None
        return Width(int(base[1 + best]), rows[best], len(axes[best]))
