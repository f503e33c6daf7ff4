"""What layers give for the filters of zeros that they read, found by running the network on two inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from ...passes.channels.constants import kept
from ...passes.channels.groups import ChannelGroup, ChannelGroups
from ...passes.channels.labels import Consumer, LabelledGraph
from ...passes.graph.model import constant_values, quiet
from ...passes.rewrite.constant_maps import ConstantMap, collapsed
from ..data.random_feeds import Feeds
from ..device import Device
from ..session import open_session

Array = np.ndarray
_SAME = 1e-6  # of a channel's largest value


@dataclass(frozen=True, slots=True)
class ConstantChannels:
    """The filters of zeros that a cut removes.

    labels: one bool a label: that it is one of them, and that all layers that read it get what it gave from `maps`
    maps: output of a layer -> what it adds there, for the channels that the cut leaves
    all: whether nothing else is removed: the cut network then is the original itself
    """

    labels: Array
    maps: Mapping[str, ConstantMap]
    all: bool


def zero_filters(groups: ChannelGroups, removed: Array) -> Array:
    """One bool a label: it is removed, and all weights that make its unit are zero."""
    tensors = groups.labelled.graph.gs.tensors()
    found = [
        group.components[_zeros(group, tensors)]
        for group in groups.free
        if group.produced and removed[np.isin(groups.component, group.components)].any()
    ]
    return removed & np.isin(groups.component, np.concatenate(found) if found else np.zeros(0, np.int64))


def constant_channels(
    groups: ChannelGroups, removed: Array, feeds: Sequence[Feeds], *, device: Device = "auto", free: bool = False
) -> ConstantChannels:
    """What the filters of zeros among the removed ones give, where that is the same in all runs.

    A channel is none of them where a layer reads it whose weight is no stored float, or where what it reads differs
    between the inputs `feeds`, as behind a gate. free: sizes of the maps may change from run to run; then what differs
    along the map, as behind a padded depthwise layer, is left out as well.
    """
    labelled = groups.labelled
    labels = zero_filters(groups, removed)
    readers = [c for c in labelled.consumers if labels[c.labels[c.labels >= 0]].any()]
    if not readers:
        return ConstantChannels(labels & False, {}, False)
    labels = labels & ~np.isin(groups.component, groups.component[list(_unread(labelled, readers, labels))])
    session = open_session(labelled.graph.source, device=device, optimise=False, additions=_taps(labelled, readers))
    runs = [session.run(feed, [f"onnx_prune.read.{c.data}" for c in readers]) for feed in feeds]
    inputs = {c.data: [run[f"onnx_prune.read.{c.data}"] for run in runs] for c in readers}
    varies = [label for c in readers for label in _varying(_axis(labelled, c), c, inputs[c.data], labels, free=free)]
    labels = labels & ~np.isin(groups.component, groups.component[varies])
    maps = {}
    for consumer in readers:
        found = _map(labelled, consumer, inputs[consumer.data][0], labels, free=free)
        if found is not None:
            node = labelled.graph.gs.nodes[consumer.node]
            outputs = kept(labelled.axes[node.outputs[0].name][found.layout.result], removed)
            maps[node.outputs[0].name] = _of_outputs(found, outputs)
    return ConstantChannels(labels, maps, bool(labels.any() and (labels == removed).all()))


def _zeros(group: ChannelGroup, tensors: Mapping[str, gs.Tensor]) -> Array:
    """One bool a unit."""
    zero = np.ones(group.units, bool)
    for key in group.produced:
        values = constant_values(tensors[key.constant]) if key.constant in tensors else None
        if values is None:
            return zero & False
        rows = np.moveaxis(np.asarray(values), key.axis, 0)[group.slices[key]]
        zero &= ~rows.reshape(group.units, -1).any(axis=1)
    return zero


def _axis(labelled: LabelledGraph, consumer: Consumer) -> Array:
    """The labels of what it reads, of all groups of a group convolution."""
    return labelled.axes[consumer.data][consumer.data_at.axis]


def _unread(labelled: LabelledGraph, readers: Sequence[Consumer], labels: Array) -> Iterator[int]:
    """Labels that a layer reads which gets no map: its weight or bias is computed, or its form is another."""
    several = [c.node for c in readers]
    for consumer in readers:
        node, layout = labelled.graph.gs.nodes[consumer.node], consumer.layout
        stored = [constant_values(t) for i, t in enumerate(node.inputs) if t.name and i != consumer.data_at.input]
        plain = layout is not None and layout.exact and layout.out is not None and several.count(consumer.node) == 1
        if not plain or not all(v is not None and v.dtype.kind == "f" for v in stored):
            axis = _axis(labelled, consumer)
            yield from axis[(axis >= 0) & labels[axis]].tolist()


def _taps(labelled: LabelledGraph, readers: Sequence[Consumer]) -> onnx.ModelProto:
    names = sorted({c.data for c in readers})
    nodes = [helper.make_node("Identity", [name], [f"onnx_prune.read.{name}"]) for name in names]
    kinds = labelled.facts.dtypes
    outputs = [helper.make_tensor_value_info(f"onnx_prune.read.{name}", int(kinds[name]), None) for name in names]
    return onnx.ModelProto(graph=onnx.GraphProto(node=nodes, output=outputs))


def _varying(axis: Array, consumer: Consumer, arrays: Sequence[Array], labels: Array, *, free: bool) -> Iterator[int]:
    """The labels of `labels` whose channels are not the same in all samples, or along the map where `free`."""
    for channel in np.flatnonzero((axis >= 0) & labels[axis]):
        runs = [np.take(array, channel, consumer.data_at.axis) for array in arrays]
        limit = _SAME * max(np.abs(run).max(initial=0) for run in runs)
        of_one = runs[0].ravel()[:1] if free else runs[0][:1]
        if not all((np.abs(run - of_one) <= limit).all() for run in runs):
            yield int(axis[channel])


def _map(labelled: LabelledGraph, consumer: Consumer, data: Array, labels: Array, *, free: bool) -> ConstantMap | None:
    """What the layer gives for these channels alone, without its bias; None where that is nothing."""
    node, layout, axis = labelled.graph.gs.nodes[consumer.node], consumer.layout, _axis(labelled, consumer)
    assert layout is not None
    chosen = (axis >= 0) & labels[axis]
    shape = [1] * data.ndim
    shape[consumer.data_at.axis] = -1
    alone = np.where(chosen.reshape(shape), data[:1], 0).astype(data.dtype)
    values = collapsed(_computed(labelled, node, consumer, alone), layout.result)
    if not values.any():
        return None
    kernel = None
    if free and values.size > values.shape[layout.result]:
        kernel = _kernel(node, consumer, alone)
    return ConstantMap(values, layout, kernel)


def _computed(labelled: LabelledGraph, node: gs.Node, consumer: Consumer, data: Array) -> Array:
    """The node's output for that input, without its bias."""
    with quiet():
        proto = OnnxExporter.export_node(node)
    layout, at = consumer.layout, consumer.data_at.input
    assert layout is not None
    if layout.bias is not None:
        del proto.input[layout.bias :]
    stored = {t.name: constant_values(t) for t in node.inputs if t.name in proto.input and t.name != consumer.data}
    graph = helper.make_graph(
        [proto],
        "layer",
        [helper.make_tensor_value_info(proto.input[at], helper.np_dtype_to_tensor_dtype(data.dtype), data.shape)],
        [helper.make_empty_tensor_value_info(proto.output[0])],
        [numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in stored.items()],
    )
    opsets = labelled.graph.source.opset_import
    model = helper.make_model(graph, opset_imports=opsets, ir_version=labelled.graph.source.ir_version)
    return open_session(model, device="cpu", optimise=False).run({proto.input[at]: data})[proto.output[0]]


def _kernel(node: gs.Node, consumer: Consumer, data: Array) -> Array:
    """(n, 1, ...), sum_c W_c v_c: a convolution of maps that are v_c everywhere as one of a map of ones."""
    W = np.asarray(constant_values(node.inputs[consumer.weight_at.input]), np.float64)
    groups = consumer.layout.groups if consumer.layout is not None else 1
    v = data.reshape(data.shape[1], -1)[:, 0].astype(np.float64).reshape(groups, W.shape[1])
    each = np.repeat(v, W.shape[0] // groups, axis=0)
    return np.einsum("nc...,nc->n...", W, each)[:, None].astype(data.dtype)


def _of_outputs(found: ConstantMap, outputs: Array) -> ConstantMap:
    """The map of the outputs that stay."""
    values = np.compress(outputs, found.values, found.layout.result)
    return ConstantMap(values, found.layout, None if found.kernel is None else found.kernel[outputs])
