"""Put what filters of zeros gave into the layers that read them, exact up to the edges of the map.

A filter of zeros gives the same in every run: a constant v after normalisation and activation. A layer that read it
loses sum_c W_c * v_c, which no bias makes up for where the layer pads: at the edges fewer kernel positions see v. That
sum is a map (1, n, H, W) with few different rows and columns: those of the edges, and one for all between them.

    table = (1, n, R, C)                             the different ones
    map = Gather(Gather(table, rows), columns)       which every runtime folds when it loads the model
    output = Add(y, map)

Where sizes are free, map = Conv(ones, kernel), with ones (1, 1, H, W) and the kernel sum_c W_c v_c (n, 1, kh, kw). What
is the same at all positions goes into the bias. Source: the constants are those of He, Kang, Dong, Fu, Yang, Soft
filter pruning for accelerating deep convolutional neural networks, IJCAI 2018 (the authors' bn_value).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from ..channels.affine import add_to_bias
from ..channels.extras import is_placer
from ..channels.labels import Layout
from ..graph.model import Graph, constant_values
from ..graph.names import Names

Array = np.ndarray
_SAME = 1e-6  # of the largest value: rounding of sums of the same numbers


@dataclass(frozen=True, slots=True)
class ConstantMap:
    """What a layer gives for constant inputs alone.

    values: (1, n, ...) of the layer's rank and type, of size 1 along axes where it does not differ
    layout: how the layer keeps its weight, and its bias
    kernel: (n, 1, ...), what it does to a map of ones, where the sizes of the map are free; else None
    """

    values: Array
    layout: Layout
    kernel: Array | None = None

    @property
    def even(self) -> bool:
        """Whether it is the same at all positions."""
        return self.values.size == self.values.shape[self.layout.result]


def collapsed(values: Array, axis: int) -> Array:
    """The values, of size 1 along all axes but `axis` along which they are the same."""
    limit = _SAME * max(np.abs(values).max(initial=0), np.finfo(np.float32).tiny)
    for other in range(values.ndim):
        first = np.take(values, [0], other)
        if other != axis and np.abs(values - first).max(initial=0) <= limit:
            values = first
    return values


def add_maps(graph: Graph, maps: Mapping[str, ConstantMap]) -> dict[str, int]:
    """Put every map behind the layer whose output has its name, in place.

    Returns the multiply-accumulates that each takes at every position, where a map of ones is convolved.
    """
    names, shared, taken = graph.names(), {}, {}
    nodes = {node.outputs[0].name: node for node in graph.gs.nodes if node.outputs}
    for output, found in maps.items():
        node = nodes[output]
        if found.even:
            add_to_bias(graph, node, found.layout, found.values.ravel())
            continue
        last, placed = _behind_placer(node, found)
        if placed.kernel is not None:
            taken[output] = placed.kernel.size
            _insert(graph, last, *_of_ones(node, names, placed.kernel))
        else:
            _insert(graph, last, *_of_table(output, names, placed, shared))
    return taken


def _behind_placer(node: gs.Node, found: ConstantMap) -> tuple[gs.Node, ConstantMap]:
    """Where a placer follows: its sum, and the map behind BatchNormalization, each channel at its place.

    What filters of the layer that are gone give is the placer's to say, of the layer's bias alone.
    """
    follows = [node, *_single_readers(node, ("BatchNormalization",), ("Pad",), ("Gather",), ("Add",))]
    if len(follows) < 4 or not is_placer(follows[-2]):
        return node, found
    factor = np.ones(found.values.shape[1])
    if follows[1].op == "BatchNormalization":
        gamma, _, _, variance = (np.asarray(constant_values(t), np.float64) for t in follows[1].inputs[1:5])
        factor = gamma / np.sqrt(variance + float(follows[1].attrs.get("epsilon", 1e-5)))
    at = constant_values(follows[-2].inputs[1])
    assert at is not None, "a placer's numbers are stored"

    def placed(values: Array, axis: int) -> Array:
        scaled = np.moveaxis(np.moveaxis(values, axis, -1) * factor, -1, axis)
        padded = np.pad(scaled, [(0, int(i == axis)) for i in range(values.ndim)])
        return np.take(padded, at, axis).astype(values.dtype)

    kernel = None if found.kernel is None else placed(found.kernel, 0)
    return follows[-1], replace(found, values=placed(found.values, 1), kernel=kernel)


def _single_readers(node: gs.Node, *kinds: Sequence[str]) -> Iterator[gs.Node]:
    """The nodes behind it, one after another, while one alone reads; the first kind may be left out."""
    for number, kind in enumerate(kinds):
        readers = node.outputs[0].outputs
        if len(readers) != 1:
            return
        if readers[0].op in kind:
            node = readers[0]
            yield node
        elif number:
            return


def _insert(graph: Graph, node: gs.Node, made: Sequence[gs.Node], total: gs.Tensor) -> None:
    """The nodes behind `node`, then the sum, which takes over the name of its output."""
    output = node.outputs[0]
    product = gs.Variable(graph.names().fresh(f"{output.name}_product"), dtype=getattr(output, "dtype", None))
    node.outputs[0] = product
    add = gs.Node("Add", name=product.name, inputs=[product, total], outputs=[output])
    at = graph.gs.nodes.index(node) + 1
    graph.gs.nodes[at:at] = [*made, add]


def _of_table(
    output: str, names: Names, found: ConstantMap, shared: dict[bytes, gs.Constant]
) -> tuple[list[gs.Node], gs.Tensor]:
    """Gathers of the different rows along each axis; those that are alike share their numbers."""
    table, picks = found.values, []
    for axis in range(table.ndim):
        if axis != found.layout.result and table.shape[axis] > 1:
            first, which = _different(table, axis)
            if len(first) < len(which):
                table = np.take(table, first, axis)
                picks.append((axis, which))
    tensor: gs.Tensor = gs.Constant(names.fresh(f"{output}_map"), table)
    made = []
    for axis, which in picks:
        if which.tobytes() not in shared:
            shared[which.tobytes()] = gs.Constant(names.fresh(f"{output}_positions"), which)
        gathered = gs.Variable(names.fresh(f"{output}_map"), dtype=table.dtype)
        made.append(gs.Node("Gather", gathered.name, {"axis": axis}, [tensor, shared[which.tobytes()]], [gathered]))
        tensor = gathered
    return made, tensor


def _different(table: Array, axis: int) -> tuple[Array, Array]:
    """The positions of the different slices, and for each slice which of them it is."""
    rows = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
    limit = _SAME * np.abs(rows).max()
    first: list[int] = []
    which = np.zeros(len(rows), np.int64)
    for number, row in enumerate(rows):
        same = next((i for i, at in enumerate(first) if np.abs(row - rows[at]).max() <= limit), len(first))
        first += [number] if same == len(first) else []
        which[number] = same
    return np.array(first), which


def _of_ones(node: gs.Node, names: Names, kernel: Array) -> tuple[list[gs.Node], gs.Tensor]:
    """The layer's own convolution of a map of ones, of the sizes that its input has in the run."""
    data, stem = node.inputs[0], node.outputs[0].name

    def variable(what: str, dtype: type = np.int64) -> gs.Variable:
        return gs.Variable(names.fresh(f"{stem}_{what}"), dtype=dtype)

    def constant(what: str, values: Array) -> gs.Constant:
        return gs.Constant(names.fresh(f"{stem}_{what}"), values)

    spatial = np.arange(2, kernel.ndim, dtype=np.int64)
    shape, sizes, whole = variable("shape"), variable("sizes"), variable("ones_shape")
    ones, result = variable("ones", kernel.dtype.type), variable("map", kernel.dtype.type)
    one = gs.Constant(names.fresh(f"{stem}_one"), np.ones(1, kernel.dtype))
    attributes = {name: value for name, value in node.attrs.items() if name != "group"}
    return [
        gs.Node("Shape", shape.name, inputs=[data], outputs=[shape]),
        gs.Node("Gather", sizes.name, {"axis": 0}, [shape, constant("spatial", spatial)], [sizes]),
        gs.Node("Concat", whole.name, {"axis": 0}, [constant("single", np.ones(2, np.int64)), sizes], [whole]),
        gs.Node("ConstantOfShape", ones.name, {"value": one}, [whole], [ones]),
        gs.Node("Conv", result.name, attributes, [ones, constant("kernel", kernel)], [result]),
    ], result
