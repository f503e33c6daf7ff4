"""Gradients of the loss by gates on channels, of every sample on its own: one forward and backward pass for all groups.

A unit's gate is a factor on the unit's channels wherever a layer reads them, 1 now; at 0 the unit is cut: that zeroes
what reads it (passes/silence.py). BatchNormalization and activation stand before the gate. Along a residual stream a
factor on every reader is one on every layer that adds to the stream, so that the gates of all producers are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from torch import Tensor

from ...passes.channel_groups import ChannelGroups
from ...passes.errors import ReadError, UsageError
from ...passes.export import to_model
from ...passes.labels import Labels
from ...passes.shapes import real_inputs
from ..session import Device
from ..sources import Batch
from .auxiliary import Depth, Head, depths, fit_heads
from .feeds import Samples, to_samples, torch_device
from .gate_loss import GateLoss, Signs
from .graph_module import GraphModule
from .readout import Edits, Readout

Array = np.ndarray
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A tensor that layers read through gates, a copy of `source`.

    columns: (C,), the gate of each index of `axis`, or the number of all gates where there is none; shape: of the
    tensor, for the batch that the labels were made for.
    """

    tensor: str
    source: str
    axis: int
    columns: Array
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GatedModel:
    """A model with an Identity at every site, and the columns of each group that has a gate; `gates` in all.

    batch: for so many samples are the shapes of the sites.
    """

    model: onnx.ModelProto
    sites: tuple[Site, ...]
    columns: Mapping[str, slice]
    gates: int
    batch: int

    def gated(self, depth: Depth) -> Depth:
        """What layers read of that tensor, behind its gates."""
        found = (s.tensor for s in self.sites if (s.source, s.axis) == (depth.tensor, depth.axis))
        return Depth(next(found, depth.tensor), depth.axis)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which loss.

    labels: of the data's labels, where there are any (see gate_loss.py); auxiliary: so many classifiers at intermediate
    depths add theirs (auxiliary.py); seed: of what is drawn.
    """

    labels: bool = True
    auxiliary: int = 0
    seed: int = 0


def gate_gradients(
    groups: ChannelGroups,
    data: Iterable[Batch],
    wanted: Wanted | None = None,
    *,
    device: Device = "auto",
    progress: Progress = lambda done: None,
) -> dict[str, Array]:
    """U of every free group that a layer reads: (samples, units) float64, U[n, i] = d loss_n / d gate_i.

    Running statistics are used, so that samples do not see one another. Memory: U, and the activations of a batch.
    progress is told how many samples are done. Raises UsageError for an operator that torch lacks here, or a loss that
    the data or the model do not allow; ReadError where gradients are not finite.
    """
    gated, wanted = with_gates(groups), wanted or Wanted()
    network = _Network(gated, GraphModule(gated.model).to(torch_device(device)).eval().requires_grad_(False), data)
    loss = network.loss(groups.labels, wanted)
    rows: list[Array] = []
    for samples in network:
        gates = samples.inputs[0].new_ones(len(samples), gated.gates, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(loss(samples, gate_edits(gated, gates)), gates)
        rows.append(found.cpu().numpy())
        progress(sum(map(len, rows)))
    if not rows:
        raise UsageError("there is no sample to take gradients on", fix="give data")
    U = np.concatenate(rows)
    if not np.isfinite(U).all():
        raise ReadError("the gradients are not finite on these data", fix="check the data and their preprocessing")
    return {name: U[:, found] for name, found in gated.columns.items()}


def gate_edits(gated: GatedModel, gates: Tensor) -> Edits:
    """What multiplies the gates onto the model's tensors. gates: (samples, gates), or (1, gates) for all samples."""
    padded = torch.cat([gates, gates.new_ones(len(gates), 1)], dim=1)
    return {site.tensor: partial(_multiply, site=site, gates=padded) for site in gated.sites}


def _multiply(x: Tensor, site: Site, gates: Tensor) -> Tensor:
    shape = [1] * x.dim()
    if len(gates) > 1:
        shape[0] = len(gates)
    shape[site.axis] = x.shape[site.axis]
    columns = torch.from_numpy(site.columns).to(gates.device)
    return x * gates[:, columns].to(x.dtype).reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """A gated model as a module, and the data: iterating gives batches in which samples are apart on the first axis."""

    gated: GatedModel
    module: GraphModule
    data: Iterable[Batch]

    def __iter__(self) -> Iterator[Samples]:
        place = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        together: bool | None = None
        for batch in self.data:
            samples = to_samples(self.module, batch, place)
            if together is None:
                together = self._apart(samples)
            yield from [samples] if together else map(samples.one, range(len(samples)))

    def loss(self, labels: Labels, wanted: Wanted) -> GateLoss:
        readout = Readout.of(self.module, self.gated.model.graph)
        heads: tuple[Head, ...] = ()
        if wanted.auxiliary:
            where = tuple(map(self.gated.gated, depths(labels, wanted.auxiliary)))
            heads = fit_heads(readout, where, self, labels=wanted.labels)
        return GateLoss(readout, heads, wanted.labels, Signs(wanted.seed))

    def _apart(self, samples: Samples) -> bool:
        """Whether every site has one sample at each index of its first axis."""
        count, shapes = len(samples), {}
        if count == 1:
            return True

        def see(x: Tensor, name: str) -> Tensor:
            shapes[name] = tuple(x.shape)
            return x

        sites, batch = self.gated.sites, self.gated.batch
        with torch.no_grad():
            self.module(*samples.inputs, edits={s.tensor: partial(see, name=s.tensor) for s in sites})
        apart = all(s.axis > 0 and s.shape[0] == batch and shapes[s.tensor] == (count, *s.shape[1:]) for s in sites)
        if not apart and batch == count:
            raise UsageError(
                f"the model fixes a batch of {count} and mixes its samples, which have no gradients of their own",
                where="--criterion",
                fix="export it with a free batch, or take a criterion without gradients",
            )
        return apart


def with_gates(groups: ChannelGroups) -> GatedModel:
    """The model with an Identity in front of the layers that read units of free groups.

    Where a layer's own output carries the unit it read (a group of a convolution), the gate is at the next reader.
    """
    graph = groups.labels.graph.copy()
    nodes, taken = list(graph.gs.nodes), set(graph.gs.tensors())
    table, columns = _columns(groups)
    gates = int(table[-1])
    shapes = groups.labels.facts.shapes
    made: dict[tuple[str, int, bytes], gs.Variable] = {}
    sites: list[Site] = []
    for number, position, axis in sorted(_readings(groups)):
        node, tensor = nodes[number], nodes[number].inputs[position]
        found = _site_columns(groups, number, position, axis, table)
        if (found == gates).all():
            continue
        key = (tensor.name, axis, found.tobytes())
        if key not in made:
            made[key] = gated = gs.Variable(_fresh(taken), dtype=getattr(tensor, "dtype", None))
            identity = gs.Node("Identity", name=gated.name, inputs=[tensor], outputs=[gated])
            graph.gs.nodes.insert(graph.gs.nodes.index(node), identity)
            source = groups.labels.graph.gs.nodes[number].inputs[position].name
            sites.append(Site(gated.name, source, axis, found, shapes[source]))
        node.inputs[position] = made[key]
    reached = np.zeros(gates + 1, bool)
    for site in sites:
        reached[site.columns] = True
    kept = {name: found for name, found in columns.items() if reached[found].all()}
    inputs = real_inputs(graph.source.graph)
    return GatedModel(to_model(graph), tuple(sites), kept, gates, next(iter(shapes[inputs[0].name]), 1))


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
    labels = groups.labels
    found = {(mask.node, mask.input, mask.axis) for mask in labels.masks}
    for consumer in labels.consumers:
        position = next(i for i, t in enumerate(labels.graph.gs.nodes[consumer.node].inputs) if t.name == consumer.data)
        for axis, there in enumerate(labels.axes.get(consumer.data, ())):
            if there is consumer.labels or np.array_equal(there, consumer.labels):
                found.add((consumer.node, position, axis))
                break
    return found


def _site_columns(groups: ChannelGroups, number: int, position: int, axis: int, table: Array) -> Array:
    """(C,) int64: the gate of each index, the last column where there is none."""
    labels, node = groups.labels, groups.labels.graph.gs.nodes[number]
    there = labels.axes[node.inputs[position].name][axis]
    component = np.where(there >= 0, groups.component[np.maximum(there, 0)], -1)
    after = [groups.component[a[a >= 0]] for t in node.outputs for a in labels.axes.get(t.name, ())]
    passed = np.isin(component, np.concatenate(after)) if after else np.zeros(len(component), bool)
    return table[np.where(passed, -1, component)]


def _fresh(taken: set[str]) -> str:
    number = 0
    while f"gated_{number}" in taken:
        number += 1
    taken.add(f"gated_{number}")
    return f"gated_{number}"
