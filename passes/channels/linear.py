"""Consumers as matrices: read the weight and bias of a convolution or matrix product, and write refitted ones back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..algebra.least_squares import Refit
from ..graph.model import Graph, constant_values, set_constant
from .labels import Consumer, Labels

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A node that computes y = W u + b over patches u of its input.

    name: its first output; node: its number; data: what it reads; W: (n, C, k) float64; b: (n,) float64, zeros where
    it has none; inputs: (C,) and outputs: (n,), the labels of its channels.
    """

    name: str
    node: int
    data: str
    W: Array
    b: Array
    inputs: Array
    outputs: Array


def linears(labels: Labels) -> Iterator[Linear]:
    """Every consumer whose weight is a float constant of its own, in the order of the graph.

    Left out, and never refitted: group convolutions, weights that several nodes share or that are made by other nodes,
    Gemm with factors, transposed A, or a bias that is no vector.
    """
    for consumer in sorted(labels.consumers, key=lambda c: c.node):
        found = _linear(labels, consumer)
        if found is not None:
            yield found


def _linear(labels: Labels, consumer: Consumer) -> Linear | None:
    node = labels.graph.gs.nodes[consumer.node]
    weight = node.inputs[1]
    values = constant_values(weight)
    if values is None or values.dtype.kind != "f" or len(weight.outputs) != 1 or weight.name != consumer.weight:
        return None
    W = _matrix(node, values)
    if W is None or W.shape[1] != len(consumer.labels):
        return None
    bias = constant_values(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if len(node.inputs) > 2 and node.inputs[2].name and (bias is None or bias.shape != (len(W),)):
        return None
    axes = labels.axes[node.outputs[0].name]
    b = np.zeros(len(W)) if bias is None else bias.astype(np.float64)
    outputs = axes[1] if node.op in ("Conv", "ConvTranspose") else axes[-1]
    return Linear(node.outputs[0].name, consumer.node, consumer.data, W, b, consumer.labels, outputs)


def _matrix(node: gs.Node, values: Array) -> Array | None:
    """The weight as (n, C, k) float64, None where the node has a form of its own."""
    attrs = node.attrs
    if node.op in ("Conv", "ConvTranspose") and int(attrs.get("group", 1)) == 1:
        W = values.reshape(*values.shape[:2], -1)
        return (W if node.op == "Conv" else W.transpose(1, 0, 2)).astype(np.float64)
    plain = attrs.get("alpha", 1.0) == 1.0 and attrs.get("beta", 1.0) == 1.0 and not attrs.get("transA", 0)
    if values.ndim == 2 and (node.op == "MatMul" or (node.op == "Gemm" and plain)):
        return (values if attrs.get("transB", 0) else values.T)[:, :, None].astype(np.float64)
    return None


def write_refit(graph: Graph, name: str, refit: Refit) -> None:
    """Put new weights and a new bias into the node that makes the tensor `name`; a node without a bias gets one.

    refit.weight must have the sizes of the weight that is there, as (n, C, k).
    """
    node = next(n for n in graph.gs.nodes if n.outputs and n.outputs[0].name == name)
    before = constant_values(node.inputs[1])
    assert before is not None, f"{name} has no constant weight"
    W = refit.weight
    if node.op == "Conv":
        W = W.reshape(before.shape)
    elif node.op == "ConvTranspose":
        W = W.transpose(1, 0, 2).reshape(before.shape)
    else:
        W = W[:, :, 0] if node.attrs.get("transB", 0) else W[:, :, 0].T
    assert W.shape == before.shape, f"{name}: {W.shape} in the place of {before.shape}"
    set_constant(node.inputs[1], np.ascontiguousarray(W.astype(before.dtype)))
    bias = refit.bias.astype(before.dtype)
    if node.op == "MatMul":
        _add_after(graph, node, bias)
        return
    while len(node.inputs) < 3:
        node.inputs.append(gs.Variable.empty())
    _put(graph, node, 2, bias, f"{name}_bias")


def _put(graph: Graph, node: gs.Node, position: int, values: Array, name: str) -> None:
    """Into the constant that is there, which keeps its name, unless others read it; else into a new one."""
    there = node.inputs[position]
    known = constant_values(there)
    if known is not None and known.shape == values.shape and len(there.outputs) == 1:
        set_constant(there, values)
    else:
        node.inputs[position] = gs.Constant(_fresh(graph, name), values)


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
    product = gs.Variable(_fresh(graph, f"{output.name}_product"), dtype=getattr(output, "dtype", None))
    node.outputs[0] = product
    constant = gs.Constant(_fresh(graph, f"{output.name}_bias"), bias)
    made = gs.Node("Add", name=product.name, inputs=[product, constant], outputs=[output])
    graph.gs.nodes.insert(graph.gs.nodes.index(node) + 1, made)


def _fresh(graph: Graph, stem: str) -> str:
    names, name, number = graph.gs.tensors(), stem, 1
    while name in names:
        number += 1
        name = f"{stem}_{number}"
    return name
