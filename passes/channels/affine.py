"""Consumers as matrices: read the weight and bias of a convolution or matrix product, and write refitted ones back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..algebra.least_squares import Refit
from ..graph.model import Graph, constant_values, set_constant
from .labels import Consumer, LabelledGraph, Layout

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class AffineConsumer:
    """A node that computes y = W u + b over patches u of its input, with a weight of its own.

    name: its first output
    consumer: what it reads, and where
    layout: how it keeps W and b
    W: (n, C, k) float64
    b: (n,) float64, zeros where it has none
    outputs: (n,), the labels of what it makes
    """

    name: str
    consumer: Consumer
    layout: Layout
    W: Array
    b: Array
    outputs: Array

    @property
    def data(self) -> str:
        """The tensor that it reads."""
        return self.consumer.data

    @property
    def inputs(self) -> Array:
        """(C,), the labels of the channels that it reads."""
        return self.consumer.labels


def affine_consumers(labelled: LabelledGraph) -> Iterator[AffineConsumer]:
    """Every consumer whose weight is a float constant of its own, in the order of the graph.

    Left out, and never refitted: group convolutions, weights that several nodes share or that are made by other nodes,
    products with a factor or an activation, data that is transposed, and a bias that is no vector.
    """
    for consumer in sorted(labelled.consumers, key=lambda c: c.node):
        affine = _affine(labelled, consumer)
        if affine is not None:
            yield affine


def _affine(labelled: LabelledGraph, consumer: Consumer) -> AffineConsumer | None:
    node, layout = labelled.graph.gs.nodes[consumer.node], consumer.layout
    if layout is None or not layout.exact or layout.groups > 1 or _is_transposed(labelled, consumer, layout):
        return None
    weight = node.inputs[consumer.weight_at.input]
    values = constant_values(weight)
    if values is None or values.dtype.kind != "f" or len(weight.outputs) != 1:
        return None
    grouped = weight_matrices(values, layout)
    if grouped is None:
        return None
    W = grouped[0].astype(np.float64)
    if W.shape[1] != len(consumer.labels):
        return None
    bias = _bias(node, layout, len(W))
    if bias is None:
        return None
    name = node.outputs[0].name
    return AffineConsumer(name, consumer, layout, W, bias, labelled.axes[name][layout.result])


def _is_transposed(labelled: LabelledGraph, consumer: Consumer, layout: Layout) -> bool:
    """Whether a product sums over another axis of the data than the last."""
    return layout.window is None and consumer.data_at.axis + 1 < len(labelled.axes[consumer.data])


def weight_matrices(values: Array, layout: Layout) -> Array | None:
    """The weight of each group, (groups, n, C, k), of the values' type; None where it has batch axes or is a vector."""
    if layout.out is None or (layout.window is None and values.ndim > 2):
        return None
    first, second, *_ = values.shape
    grouped = values.reshape(layout.groups, first // layout.groups, second, -1)
    return grouped if layout.out == 0 else grouped.transpose(0, 2, 1, 3)


def _bias(node: gs.Node, layout: Layout, size: int) -> Array | None:
    """The bias (size,) float64, zeros where there is none; None where it is no such constant."""
    if layout.bias is None or len(node.inputs) <= layout.bias or not node.inputs[layout.bias].name:
        return np.zeros(size)
    bias = constant_values(node.inputs[layout.bias])
    return None if bias is None or bias.shape != (size,) else bias.astype(np.float64)


def write_refit(graph: Graph, consumer: AffineConsumer, refit: Refit) -> None:
    """Put new weights and a new bias into a consumer, in this graph or a cut one; a node without a bias gets one.

    refit.weight must have the sizes of the weight that is there, as (n, C, k).
    """
    name, layout = consumer.name, consumer.layout
    node = next(n for n in graph.gs.nodes if n.outputs and n.outputs[0].name == name)
    weight = node.inputs[consumer.consumer.weight_at.input]
    before = constant_values(weight)
    assert before is not None, f"{name} has no constant weight"
    W = refit.weight if layout.out == 0 else refit.weight.transpose(1, 0, 2)
    assert W.shape[:2] == before.shape[:2], f"{name}: {W.shape} in the place of {before.shape}"
    set_constant(weight, np.ascontiguousarray(W.reshape(before.shape).astype(before.dtype)))
    bias = refit.bias.astype(before.dtype)
    if layout.bias is None:
        _add_after(graph, node, bias)
        return
    while len(node.inputs) <= layout.bias:
        node.inputs.append(gs.Variable.empty())
    _put(graph, node, layout.bias, bias, f"{name}_bias")


def _put(graph: Graph, node: gs.Node, position: int, values: Array, name: str) -> None:
    """Into the constant that is there, which keeps its name, unless others read it; else into a new one."""
    constant = node.inputs[position]
    held = constant_values(constant)
    if held is not None and held.shape == values.shape and len(constant.outputs) == 1:
        set_constant(constant, values)
    else:
        node.inputs[position] = gs.Constant(graph.names().fresh(name), values)


def _add_after(graph: Graph, node: gs.Node, bias: Array) -> None:
    """Into the constant that the product's only reader adds, where there is such a one; else into an Add of its own."""
    output = node.outputs[0]
    reader = output.outputs[0] if len(output.outputs) == 1 else None
    if reader is not None and reader.op == "Add":
        other = next(t for t in reader.inputs if t is not output)
        values = constant_values(other)
        if values is not None and values.shape[-1:] == bias.shape and values.size == bias.size:
            position = next(i for i, t in enumerate(reader.inputs) if t is other)
            _put(graph, reader, position, values + bias.reshape(values.shape), f"{output.name}_bias")
            return
    if not bias.any():
        return
    names = graph.names()
    product = gs.Variable(names.fresh(f"{output.name}_product"), dtype=getattr(output, "dtype", None))
    node.outputs[0] = product
    constant = gs.Constant(names.fresh(f"{output.name}_bias"), bias)
    add = gs.Node("Add", name=product.name, inputs=[product, constant], outputs=[output])
    graph.gs.nodes.insert(graph.gs.nodes.index(node) + 1, add)
