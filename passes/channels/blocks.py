"""Residual blocks: the sums of a graph, with the nodes between each and the place where its two branches part."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .groups import ChannelGroups
from .labels import LabelledGraph

_BOTH = 3  # reached from both summands


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block.

    sum: the number of the Add
    inside: the numbers of the nodes that one of its two operands is made by alone
    shape: of the sum, () where it is unknown
    """

    sum: int
    inside: frozenset[int]
    shape: tuple[int, ...]


def residual_blocks(labelled: LabelledGraph) -> tuple[Block, ...]:
    """Every Add of two computed tensors of one shape that have an ancestor in common, in the order of the graph.

    Only the nodes of a block are visited to find it.
    """
    return tuple(_blocks(labelled))


def _blocks(labelled: LabelledGraph) -> Iterator[Block]:
    nodes, shapes = labelled.graph.gs.nodes, labelled.facts.shapes
    maker = {tensor.name: -1 - number for number, tensor in enumerate(labelled.graph.gs.inputs)}
    maker |= {t.name: number for number, node in enumerate(nodes) for t in node.outputs if node.op != "Constant"}
    for number, node in enumerate(nodes):
        if node.op != "Add" or len({shapes.get(t.name) for t in node.inputs}) > 1:
            continue
        if not all(_computed(t) for t in node.inputs):
            continue
        inside = _inside(nodes, maker, node)
        if inside is not None:
            yield Block(number, inside, tuple(shapes.get(node.outputs[0].name, ())))


def _computed(tensor: gs.Tensor) -> bool:
    return not isinstance(tensor, gs.Constant) and not any(node.op == "Constant" for node in tensor.inputs)


def _inside(nodes: list[gs.Node], maker: dict[str, int], add: gs.Node) -> frozenset[int] | None:
    """Walk back from both operands, the last node first, until all that is left belongs to both; None where nothing is.

    maker: the number of the node that makes a tensor, negative for inputs of the graph.
    """
    sides: dict[int, int] = {}
    waiting: list[int] = []

    def reach(tensors: Iterable[gs.Tensor], side: int) -> None:
        for number in [maker[tensor.name] for tensor in tensors if tensor.name in maker]:
            if number not in sides:
                heapq.heappush(waiting, -number)
            sides[number] = sides.get(number, 0) | side

    for side, tensor in enumerate(add.inputs, 1):
        reach([tensor], side)
    while waiting and any(sides[-number] != _BOTH for number in waiting):
        number = -heapq.heappop(waiting)
        reach(nodes[number].inputs if number >= 0 else [], sides[number])
    if not waiting:
        return None
    passed = sides.keys() - {-number for number in waiting}
    return frozenset(number for number in passed if number >= 0 and sides[number] != _BOTH)


def above(labelled: LabelledGraph, number: int, block: Block) -> set[int]:
    """The nodes of the block that the node reads from, over any number of others."""
    nodes = labelled.graph.gs.nodes
    maker = {tensor.name: n for n in block.inside for tensor in nodes[n].outputs}
    found: set[int] = set()
    waiting = [number]
    while waiting:
        new = {maker[t.name] for t in nodes[waiting.pop()].inputs if t.name in maker} - found
        found |= new
        waiting += new
    return found


def convolutions_above(labelled: LabelledGraph, number: int, block: Block) -> set[int]:
    """The convolutions among them."""
    return {n for n in above(labelled, number, block) if labelled.graph.gs.nodes[n].op == "Conv"}


def producers(groups: ChannelGroups) -> dict[str, tuple[int, ...]]:
    """Group -> the numbers of the nodes that make its channels, ascending; groups that nothing makes are left out."""
    owner = _owners(groups)
    nodes_of: dict[str, list[int]] = {}
    for node, array in groups.labelled.produced:
        for number in np.unique(owner[array[array >= 0]]).tolist():
            if number >= 0:
                nodes_of.setdefault(groups.groups[number].name, []).append(node)
    return {name: tuple(sorted(set(nodes))) for name, nodes in nodes_of.items()}


def summed(groups: ChannelGroups, blocks: tuple[Block, ...]) -> frozenset[str]:
    """The groups whose channels run along a sum of one of the blocks: the residual streams."""
    owner, nodes = _owners(groups), groups.labelled.graph.gs.nodes
    axes = [a for b in blocks for a in groups.labelled.axes.get(nodes[b.sum].outputs[0].name, ())]
    numbers = {n for axis in axes for n in np.unique(owner[axis[axis >= 0]]).tolist() if n >= 0}
    return frozenset(groups.groups[n].name for n in numbers)


def _owners(groups: ChannelGroups) -> np.ndarray:
    """The number of the group of each label, -1 for none."""
    of_component = np.full(int(groups.component.max(initial=-1)) + 1, -1)
    for number, group in enumerate(groups.groups):
        of_component[group.components] = number
    return of_component[groups.component]
