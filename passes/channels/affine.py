"""Consumers as matrices: read the weight and bias of a convolution or matrix product, and write refitted ones back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from ..algebra.least_squares import Refit
from ..graph.model import Graph, constant_values, set_constant
from .labels import Consumer, LabelledGraph, Layout

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class AffineConsumer:
    """A node that computes y = W u + b over patches u of its input, with a weight that only nodes of its kind read.

    name: its first output
    consumer: what it reads, and where
    layout: how it keeps W and b
    b: (n,) float64, zeros where it has none
    outputs: (n,), the labels of what it makes
    uses: first outputs of all nodes that read this weight, in the order of the graph, its own among them
    weight, bias: the tensors that hold W and b, None for a bias that it does not have
    """

    name: str
    consumer: Consumer
    layout: Layout
    b: Array
    outputs: Array
    uses: tuple[str, ...]
    weight: gs.Tensor
    bias: str | None

    @property
    def W(self) -> Array:
        """(n, C, k) float64, made anew each time: all weights of a network at once are three times its file."""
        values = float_values(self.weight)
        assert values is not None, f"{self.weight.name} is not a constant"
        grouped = weight_matrices(values, self.layout)
        assert grouped is not None, f"{self.weight.name} is not a matrix"
        return grouped[0].astype(np.float64)

    @property
    def data(self) -> str:
        """The tensor that it reads."""
        return self.consumer.data

    @property
    def inputs(self) -> Array:
        """(C,), the labels of the channels that it reads."""
        return self.consumer.labels

    @property
    def may_have_bias(self) -> bool:
        """Whether a refit may give it a bias: a quantised node without one would no longer be fused with its scales."""
        return dequantising(self.weight) is None or self.bias is not None


def affine_consumers(labelled: LabelledGraph) -> Iterator[AffineConsumer]:
    """Every weight that only such nodes read, as floats or through DequantizeLinear, in the order of the graph.

    Left out, and never refitted: group convolutions, weights that are made by other nodes or that are read by nodes
    that differ in more than their data, products with a factor or an activation, data that is transposed, and a bias
    that is no vector.
    """
    of_weight: dict[str, list[AffineConsumer]] = {}
    for consumer in sorted(labelled.consumers, key=lambda c: c.node):
        affine = _affine(labelled, consumer)
        if affine is not None:
            of_weight.setdefault(stored(affine.weight).name, []).append(affine)
    for consumers in of_weight.values():
        first = consumers[0]
        alike = all(c.layout == first.layout and c.bias == first.bias for c in consumers)
        if alike and _readers(first.weight) == len(consumers):
            yield replace(first, uses=tuple(c.name for c in consumers))


def _readers(weight: gs.Tensor) -> int:
    """How many nodes read the constant, whether it is dequantised for them once or several times."""
    constant = stored(weight)
    if constant is weight:
        return len(weight.outputs)
    return sum(len(node.outputs[0].outputs) for node in constant.outputs)


def _affine(labelled: LabelledGraph, consumer: Consumer) -> AffineConsumer | None:
    node, layout = labelled.graph.gs.nodes[consumer.node], consumer.layout
    if layout is None or not layout.exact or layout.groups > 1 or _is_transposed(labelled, consumer, layout):
        return None
    weight = node.inputs[consumer.weight_at.input]
    values = float_values(weight)
    grouped = None if values is None else weight_matrices(values, layout)
    if grouped is None or grouped.shape[2] != len(consumer.labels):
        return None
    b = _bias(node, layout, grouped.shape[1])
    if b is None:
        return None
    name = node.outputs[0].name
    outputs = labelled.axes[name][layout.result]
    return AffineConsumer(name, consumer, layout, b, outputs, (name,), weight, _bias_name(node, layout))


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


def _bias_name(node: gs.Node, layout: Layout) -> str | None:
    at = layout.bias
    return None if at is None or len(node.inputs) <= at else node.inputs[at].name or None


def _bias(node: gs.Node, layout: Layout, size: int) -> Array | None:
    """The bias (size,) float64, zeros where there is none; None where it is no such constant."""
    if _bias_name(node, layout) is None:
        return np.zeros(size)
    bias = float_values(node.inputs[layout.bias])  # type: ignore[index]  # it has one
    return None if bias is None or bias.shape != (size,) else bias.astype(np.float64)


def write_refit(graph: Graph, consumer: AffineConsumer, refit: Refit, given: Array | None = None) -> None:
    """Put new weights and a new bias into a consumer, in this graph or a cut one; a node without a bias gets one.

    refit.weight must have the sizes of the weight that is there, as (n, C, k); given: the bias that it was given
    earlier, which this one takes the place of: a sum behind a product holds both the model's own and that one.
    """
    layout = consumer.layout
    nodes = _nodes(graph, consumer)
    kind = np.dtype(np.float32)
    for weight in {id(stored(t)): t for t in (n.inputs[consumer.consumer.weight_at.input] for n in nodes)}.values():
        before = float_values(weight)
        assert before is not None, f"{consumer.name} has no constant weight"
        W = refit.weight if layout.out == 0 else refit.weight.transpose(1, 0, 2)
        assert W.shape[:2] == before.shape[:2], f"{consumer.name}: {W.shape} in the place of {before.shape}"
        kind = before.dtype
        set_float_values(weight, np.ascontiguousarray(W.reshape(before.shape).astype(before.dtype)))
    if consumer.may_have_bias:
        bias = refit.bias.astype(kind)
        more = bias if given is None or layout.bias is not None else (refit.bias - given).astype(kind)
        for node in nodes:
            _write_bias(graph, node, layout, more, readers=nodes)


def _nodes(graph: Graph, consumer: AffineConsumer) -> list[gs.Node]:
    """The nodes of its uses; where a sum that an earlier refit put in makes the output, the product in front of it."""
    makers = [n for n in graph.gs.nodes if n.outputs and n.outputs[0].name in consumer.uses]
    return [n if n.op != "Add" else next(t for t in n.inputs if t.inputs).inputs[0] for n in makers]


def own_constants(graph: Graph, layers: Collection[str]) -> dict[str, Array]:
    """Float weights and biases that these layers and the sums behind them read, and nothing else does, by name.

    layers: first outputs of nodes of the graph, an original one or a cut and refitted one.
    """
    tensors = graph.gs.tensors()
    makers = [tensors[name].inputs[0] for name in layers if name in tensors and tensors[name].inputs]
    products = [t.inputs[0] for node in makers if node.op == "Add" for t in node.inputs if t.inputs]
    sums = [n for node in makers for n in node.outputs[0].outputs if n.op == "Add"]
    nodes = {id(node): node for node in (*makers, *products, *sums) if node.op != "Constant"}
    found: dict[str, Array] = {}
    for node in nodes.values():
        for tensor in node.inputs:
            values = constant_values(tensor)
            if values is not None and values.dtype.kind == "f" and all(id(n) in nodes for n in tensor.outputs):
                found[tensor.name] = values
    return found


def with_bias(graph: Graph, consumer: AffineConsumer) -> None:
    """Give each use of a consumer that has no bias, and may have one as an input of its own, one of zeros."""
    layout = consumer.layout
    if layout.bias is None or not consumer.may_have_bias:
        return
    for node in [n for n in graph.gs.nodes if n.outputs and n.outputs[0].name in consumer.uses]:
        weight = float_values(node.inputs[consumer.consumer.weight_at.input])
        matrices = None if weight is None else weight_matrices(weight, layout)
        if weight is not None and matrices is not None and _bias_name(node, layout) is None:
            _write_bias(graph, node, layout, np.zeros(matrices.shape[1], weight.dtype), readers=[node])


def add_to_bias(graph: Graph, node: gs.Node, layout: Layout, values: Array) -> None:
    """Add (n,) to the bias of a node whose bias, if it has one, is a constant; where there is none it gets one."""
    if layout.bias is not None and _bias_name(node, layout) is not None:
        held = float_values(node.inputs[layout.bias])
        assert held is not None, f"{node.outputs[0].name} has no constant bias"
        values = (held + values).astype(held.dtype)
    _write_bias(graph, node, layout, values, readers=[node])


def _write_bias(graph: Graph, node: gs.Node, layout: Layout, bias: Array, readers: Sequence[gs.Node]) -> None:
    if layout.bias is None:
        _add_after(graph, node, bias)
        return
    while len(node.inputs) <= layout.bias:
        node.inputs.append(gs.Variable.empty())
    _put(graph, node, layout.bias, bias, readers)


def _put(graph: Graph, node: gs.Node, position: int, values: Array, readers: Sequence[gs.Node]) -> None:
    """Into the constant that is there, which keeps its name, unless other nodes read it; else into a new one."""
    constant = node.inputs[position]
    held = float_values(constant)
    mine = {id(reader) for reader in readers}
    if held is not None and held.shape == values.shape and all(id(n) in mine for n in constant.outputs):
        set_float_values(constant, values)
    else:
        node.inputs[position] = gs.Constant(graph.names().fresh(f"{node.outputs[0].name}_bias"), values)


def _add_after(graph: Graph, node: gs.Node, bias: Array) -> None:
    """Into the constant that the product's only reader adds, where there is such a one; else into an Add of its own."""
    output = node.outputs[0]
    reader = output.outputs[0] if len(output.outputs) == 1 else None
    if reader is not None and reader.op == "Add":
        other = next(t for t in reader.inputs if t is not output)
        values = constant_values(other)
        if values is not None and values.shape[-1:] == bias.shape and values.size == bias.size:
            position = next(i for i, t in enumerate(reader.inputs) if t is other)
            _put(graph, reader, position, values + bias.reshape(values.shape), [reader])
            return
    if not bias.any():
        return
    names = graph.names()
    product = gs.Variable(names.fresh(f"{output.name}_product"), dtype=getattr(output, "dtype", None))
    node.outputs[0] = product
    constant = gs.Constant(names.fresh(f"{output.name}_bias"), bias)
    add = gs.Node("Add", name=product.name, inputs=[product, constant], outputs=[output])
    graph.gs.nodes.insert(graph.gs.nodes.index(node) + 1, add)


# ---- weights that DequantizeLinear makes of integers: w = (q - zero) * scale; scales and zero points stay


def float_values(tensor: gs.Tensor) -> Array | None:
    """The floats of a constant, or of what DequantizeLinear makes of one; None for anything else."""
    values = constant_values(tensor)
    if values is not None:
        return values if values.dtype.kind == "f" else None
    node = dequantising(tensor)
    parts = None if node is None else integer_parts(node)
    return None if parts is None else (parts[0].astype(np.float32) - parts[2]) * parts[1]


def set_float_values(tensor: gs.Tensor, values: Array) -> None:
    """Put floats of the same shape in their place; a quantised constant gets the nearest integers of its range."""
    node = dequantising(tensor)
    if node is None:
        set_constant(tensor, values)
        return
    parts = integer_parts(node)
    assert parts is not None, f"{tensor.name} is not made of constants"
    whole, scale, zero = parts
    limits = np.iinfo(whole.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.nan_to_num(np.rint(values.astype(np.float64) / scale) + zero)
    set_constant(node.inputs[0], np.clip(steps, limits.min, limits.max).astype(whole.dtype))


def stored(tensor: gs.Tensor) -> gs.Tensor:
    """The constant that holds the values: the tensor itself, or what is dequantised."""
    node = dequantising(tensor)
    return tensor if node is None else node.inputs[0]


def dequantising(tensor: gs.Tensor) -> gs.Node | None:
    """The DequantizeLinear that makes it."""
    makers = tensor.inputs
    return makers[0] if len(makers) == 1 and makers[0].op == "DequantizeLinear" else None


def integer_parts(node: gs.Node) -> tuple[Array, Array, Array] | None:
    """(integers, scales, zeros), the last two so that they broadcast; None where not all are known."""
    whole, scale = constant_values(node.inputs[0]), constant_values(node.inputs[1])
    has_zero = len(node.inputs) > 2 and node.inputs[2].name
    zero = constant_values(node.inputs[2]) if has_zero else np.zeros((), np.int32)
    if whole is None or scale is None or zero is None or whole.dtype.kind not in "iu" or node.attrs.get("block_size"):
        return None
    along = [1] * whole.ndim
    if scale.size > 1:
        along[int(node.attrs.get("axis", 1)) % whole.ndim] = -1
    return (
        whole,
        scale.reshape(along).astype(np.float32),
        np.reshape(zero, along if zero.size > 1 else ()).astype(np.float32),
    )
