"""The graph with a place for gates: an Identity in front of every layer that reads units of free groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ....passes.channels.groups import ChannelGroups
from ....passes.channels.node_view import NodeView
from ....passes.graph.export import to_model
from ....passes.graph.shapes import real_inputs

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class GatedTensor:
    """A tensor that layers read through gates.

    tensor: its name, that of a copy of `source`
    source: the tensor of the model
    axis: along which the gates are
    columns: (C,) int64, the gate of each index of the axis; where there is none, the number of all gates
    shape: of the tensor, for the batch that the labels were made for
    """

    tensor: str
    source: str
    axis: int
    columns: Array
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GatedModel:
    """A model with an Identity for every gated tensor.

    model: the model
    tensors: the gated ones
    columns: group -> its gates, for the groups that have them
    gates: how many there are in all
    batch: how many samples the shapes of the tensors are for
    """

    model: onnx.ModelProto
    tensors: tuple[GatedTensor, ...]
    columns: Mapping[str, slice]
    gates: int
    batch: int

    def behind(self, source: str, axis: int) -> str:
        """What layers read of that tensor: itself, or the copy behind gates along this axis."""
        return next((s.tensor for s in self.tensors if (s.source, s.axis) == (source, axis)), source)


def with_gates(groups: ChannelGroups) -> GatedModel:
    """The model with an Identity in front of the layers that read units of free groups.

    Where a layer's own output carries the unit it read (a group of a convolution), the gate is at the next reader.
    """
    graph = groups.labelled.graph.copy()
    nodes, names = list(graph.gs.nodes), graph.names()
    table, columns = _columns(groups)
    gates = int(table[-1])
    shapes = groups.labelled.facts.shapes
    copies: dict[tuple[str, int, bytes], gs.Variable] = {}
    tensors: list[GatedTensor] = []
    for number, position, axis in sorted(_readings(groups)):
        node, tensor = nodes[number], nodes[number].inputs[position]
        gate_of = _gate_columns(groups, number, position, axis, table)
        if (gate_of == gates).all():
            continue
        key = (tensor.name, axis, gate_of.tobytes())
        if key not in copies:
            copies[key] = gated = gs.Variable(names.numbered("gated"), dtype=getattr(tensor, "dtype", None))
            identity = gs.Node("Identity", name=gated.name, inputs=[tensor], outputs=[gated])
            graph.gs.nodes.insert(graph.gs.nodes.index(node), identity)
            source = groups.labelled.graph.gs.nodes[number].inputs[position].name
            tensors.append(GatedTensor(gated.name, source, axis, gate_of, shapes[source]))
        node.inputs[position] = copies[key]
    reached = np.isin(np.arange(gates), np.concatenate([gate.columns for gate in tensors] or [np.zeros(0)]))
    kept = {name: own for name, own in columns.items() if reached[own].all()}
    batch = next(iter(shapes[real_inputs(graph.source.graph)[0].name]), 1)
    return GatedModel(to_model(graph), tuple(tensors), kept, gates, batch)


def _columns(groups: ChannelGroups) -> tuple[Array, dict[str, slice]]:
    """The gate of each component and the gates of each free group; what has none, like table[-1], has their number."""
    columns: dict[str, slice] = {}
    gates = 0
    for group in groups.free:
        columns[group.name] = slice(gates, gates + group.units)
        gates += group.units
    table = np.full(int(groups.component.max(initial=-1)) + 2, gates)
    for group in groups.free:
        table[group.components] = np.arange(gates)[columns[group.name]]
    return table, columns


def _readings(groups: ChannelGroups) -> set[tuple[int, int, int]]:
    """(node, input, axis) of every contraction of an activation."""
    labelled = groups.labelled
    masked = {(mask.node, mask.input, mask.axis) for mask in labelled.masks}
    return masked | {(c.node, c.data_at.input, c.data_at.axis) for c in labelled.consumers if c.data in labelled.axes}


def _gate_columns(groups: ChannelGroups, number: int, position: int, axis: int, table: Array) -> Array:
    """(C,) int64: the gate of each index, the last column where there is none."""
    node = NodeView(groups.labelled, number)
    there = node.axes(position)[axis]
    component = np.where(there >= 0, groups.component[np.maximum(there, 0)], -1)
    outputs = range(len(node.original.outputs))
    after = [groups.component[a[a >= 0]] for i in outputs for a in node.output_axes(i)]
    passed = np.isin(component, np.concatenate(after)) if after else np.zeros(len(component), bool)
    return table[np.where(passed, -1, component)]
