"""Stretches of a network that can be fitted on their own: between places where one tensor alone is read any more.

A chain has such a place between any two layers, a residual network behind each of its blocks, a network of dense
blocks behind each concatenation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import onnx_graphsurgeon as gs

from ..graph.bodies import captured_names
from ..graph.model import Graph


class Stretch(NamedTuple):
    """Nodes up to the one that makes the tensor `end`; layers: first outputs of the layers among them."""

    end: str
    layers: tuple[str, ...]


def stretches(graph: Graph, layers: Collection[str], sizes: Mapping[str, int], least: int) -> list[Stretch]:
    """The network in stretches of at least so many layers, front to back.

    layers: first outputs of the nodes that count; sizes: elements of tensors. A stretch ends at the last place in front
    of a layer, so behind the activation of its own last one, but in front of a pool: more numbers say more of the
    weights. The last stretch ends with the output and may have fewer; where there are several outputs, what comes
    after the last place is in no stretch.
    """
    found: list[Stretch] = []
    inside: list[str] = []
    place: Stretch | None = None
    last_read = _last_read(graph)
    moving = {tensor.name for tensor in graph.gs.inputs}  # what depends on the inputs
    alive = set(moving)
    for number, node in enumerate(graph.gs.nodes):
        own = node.outputs[0].name if node.outputs else ""
        if own in layers:
            if place is not None and len(place.layers) >= least:
                found.append(place)
                inside, place = inside[len(place.layers) :], None
            inside.append(own)
        if not moving.isdisjoint(_reads(node)):
            moving.update(tensor.name for tensor in node.outputs)
            alive.update(tensor.name for tensor in node.outputs)
        alive = {name for name in alive if last_read.get(name, -1) > number}
        if len(alive) == 1:
            name = next(iter(alive))
            if place is None or len(place.layers) < len(inside) or sizes.get(name, 0) >= sizes.get(place.end, 0):
                place = Stretch(name, tuple(inside))
    if inside and len(graph.gs.outputs) == 1:
        found.append(Stretch(graph.gs.outputs[0].name, tuple(inside)))
    return found


def _last_read(graph: Graph) -> dict[str, int]:
    """Tensor -> the number of the last node that reads it."""
    return {name: number for number, node in enumerate(graph.gs.nodes) for name in _reads(node)}


def _reads(node: gs.Node) -> set[str]:
    return {tensor.name for tensor in node.inputs if tensor.name} | captured_names(node)
