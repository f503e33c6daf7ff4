"""What becomes of a graph where some tensors hold no channels any more: which nodes go, and what is left of them.

A node all of whose outputs are empty is gone. One that reads what is empty or constant gives a constant, remains, or
is where the cut must not be made (`folds`). What only nodes that went have read is gone as well.
"""

from __future__ import annotations

import heapq
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from ...graph.bodies import captured_names
from ...graph.folding import RANDOM
from ...graph.model import constant_values
from ..labels import Consumer, LabelledGraph
from .folds import STAYS, KnownNode, Outcome, Varying, outcome


@dataclass(frozen=True, slots=True)
class Settled:
    """What the cut does to the nodes.

    gone: numbers of the nodes that have no place in the cut graph
    folded: those of them that leave a constant, in the order of the graph
    stored: those of them that compute something from stored values alone, which a constant may be made from
    constants: tensor -> the axes along which it differs, of what they leave; the other axes have size 1
    operands: nodes that remain and read a constant -> which of their inputs
    problem: where the cut must not be made, and why; None where nothing is in the way
    """

    gone: frozenset[int]
    folded: tuple[int, ...]
    stored: frozenset[int]
    constants: Mapping[str, Varying]
    operands: Mapping[int, frozenset[int]]
    problem: str | None


class Wiring:
    """Who makes and who reads each tensor of a labelled graph, read once."""

    def __init__(self, labelled: LabelledGraph) -> None:
        self.labelled = labelled
        self.nodes: list[gs.Node] = list(labelled.graph.gs.nodes)
        self.outputs = {tensor.name for tensor in labelled.graph.gs.outputs}
        self.maker: dict[str, int] = {}
        self.readers: dict[str, list[int]] = {}
        self.reads: list[tuple[str, ...]] = []
        self.consumers: dict[int, list[Consumer]] = {}
        self.static: dict[str, Varying] = {}
        for consumer in labelled.consumers:
            self.consumers.setdefault(consumer.node, []).append(consumer)
        for number, node in enumerate(self.nodes):
            captured = captured_names(node)
            self.reads.append(tuple({t.name for t in node.inputs if t.name} | captured))
            self.maker.update((t.name, number) for t in node.outputs if t.name)
            for name in self.reads[-1]:
                self.readers.setdefault(name, []).append(number)
            self._note_static(node, plain=not captured and node.op not in RANDOM)

    def _note_static(self, node: gs.Node, *, plain: bool) -> None:
        """Stored values that the node reads, and its results where it reads nothing else."""
        for tensor in node.inputs:
            if tensor.name and tensor.name not in self.static:
                values = constant_values(tensor)
                if values is not None:
                    self.static[tensor.name] = _varying(values.shape)
        shapes = self.labelled.facts.shapes
        if plain and node.inputs and all(not t.name or t.name in self.static for t in node.inputs):
            self.static.update((t.name, _varying(shapes[t.name])) for t in node.outputs if t.name in shapes)


def _varying(shape: Iterable[int]) -> Varying:
    return frozenset(axis for axis, size in enumerate(shape) if size != 1)


def settle(wiring: Wiring, empty: Collection[str]) -> Settled:
    """What becomes of the graph where these tensors are empty; only nodes near them are visited."""
    work = _Work(wiring, empty)
    work.forward()
    work.backward()
    problem = next((reason for number, reason in sorted(work.problems) if number not in work.gone), None)
    folded = tuple(sorted(number for number in work.folded))
    stored = frozenset(n for n in work.gone if all(t.name in wiring.static for t in wiring.nodes[n].outputs))
    operands = {number: taken for number, taken in work.operands.items() if number not in work.gone}
    return Settled(frozenset(work.gone), folded, stored, work.constants, operands, problem)


@dataclass(slots=True)
class _Work:
    wiring: Wiring
    empty: Collection[str]
    gone: set[int] = field(default_factory=set)
    folded: list[int] = field(default_factory=list)
    constants: dict[str, Varying] = field(default_factory=dict)
    operands: dict[int, frozenset[int]] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def forward(self) -> None:
        """From what is empty to where constants are taken in, node by node in the order of the graph."""
        waiting: list[int] = []
        for name in self.empty:
            self._push(waiting, name)
            if name in self.wiring.maker:
                heapq.heappush(waiting, self.wiring.maker[name])
        last = -1
        while waiting:
            number = heapq.heappop(waiting)
            if number != last:
                self._visit(number, waiting)
            last = number

    def _visit(self, number: int, waiting: list[int]) -> None:
        node = self.wiring.nodes[number]
        outputs = [t.name for t in node.outputs if t.name]
        lost = [name for name in outputs if name in self.empty]
        if outputs and len(lost) == len(outputs):
            self.gone.add(number)
            return
        found = self._outcome(number, node, lost)
        if isinstance(found, str):
            self.problems.append((number, found))
        elif found is STAYS:
            taken = [i for i, t in enumerate(node.inputs) if t.name in self.constants]
            if taken:
                self.operands[number] = frozenset(taken)
        else:
            self._fold(number, outputs, found, waiting)

    def _outcome(self, number: int, node: gs.Node, lost: list[str]) -> Outcome:
        if not set(self.wiring.reads[number]) <= {t.name for t in node.inputs}:
            return f"the body of {node.op} would read it"
        if lost:
            whole = node.op == "Split" and node.inputs[0].name not in self.constants
            return STAYS if whole else f"{node.op} would be left with some of its results"
        constants = ChainMap(self.constants, self.wiring.static)
        consumers = self.wiring.consumers.get(number, ())
        return outcome(KnownNode(self.wiring.labelled, node, self.empty, constants, self.wiring.static, consumers))

    def _fold(self, number: int, outputs: list[str], varying: Varying, waiting: list[int]) -> None:
        self.gone.add(number)
        self.folded.append(number)
        for name in outputs:
            self.constants[name] = varying
            self._push(waiting, name)
            if name in self.wiring.outputs:
                self.problems.append((len(self.wiring.nodes), f"the output '{name}' would be a constant"))

    def _push(self, waiting: list[int], name: str) -> None:
        for reader in self.wiring.readers.get(name, ()):
            heapq.heappush(waiting, reader)

    def backward(self) -> None:
        """What only nodes that went have read goes as well, the last node first."""
        waiting = [-number for number, _ in self.problems if number < len(self.wiring.nodes)]
        waiting += [-maker for number in self.gone for maker in self._makers(number)]
        heapq.heapify(waiting)
        while waiting:
            number = -heapq.heappop(waiting)
            if number not in self.gone and self._unread(number):
                self.gone.add(number)
                for maker in self._makers(number):
                    heapq.heappush(waiting, -maker)

    def _makers(self, number: int) -> list[int]:
        return [self.wiring.maker[name] for name in self.wiring.reads[number] if name in self.wiring.maker]

    def _unread(self, number: int) -> bool:
        names = [t.name for t in self.wiring.nodes[number].outputs if t.name]
        if any(name in self.wiring.outputs for name in names):
            return False
        return all(reader in self.gone for name in names for reader in self.wiring.readers.get(name, ()))
