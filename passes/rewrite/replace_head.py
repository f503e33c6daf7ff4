"""The fully connected layers at the end of a classifier, and one linear layer on pooled maps in their place.

Source: Luo et al., ThiNet, ICCV 2017: in VGG-16 they hold most of the parameters and are swapped for global average
pooling. What the network computes changes: this is not a cut, and nothing is proved of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..algebra.least_squares import Refit
from ..channels.affine import AffineConsumer, affine_consumers
from ..channels.labels import LabelledGraph
from ..errors import UsageError
from ..graph.model import Graph, constant_values
from ..graph.names import Names, modules

Array = np.ndarray
_PASSED = ("Relu", "Clip", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Dropout", "Identity")
_BEHIND = ("Softmax", "LogSoftmax", "Identity")  # the logits


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The fully connected layers between maps and an output.

    maps: the tensor (N, C, ...) that is flattened
    logits: what the last layer makes, with its bias
    layers: names of the layers, the first first
    nodes: the numbers of all nodes in between
    steps: every layer and BatchNormalization as y = W x + b: W (n, m) and b (n,), float64
    """

    maps: str
    logits: str
    layers: tuple[str, ...]
    nodes: tuple[int, ...]
    steps: tuple[tuple[Array, Array], ...]


def find_head(labelled: LabelledGraph) -> Head:
    """Walk back from the output to where maps are flattened. Raises UsageError where the end is of another form."""
    outputs = [t for t in labelled.graph.gs.outputs if len(labelled.facts.shapes.get(t.name, ())) == 2]
    for output in outputs:
        head = _walk(labelled, output)
        if head is not None:
            return head
    raise UsageError(
        "there are no fully connected layers between maps and an output",
        where=f"--replace-head; outputs: {', '.join(t.name for t in labelled.graph.gs.outputs)}",
        fix="leave it out: it is for networks that flatten their maps, as VGG does",
    )


def _walk(labelled: LabelledGraph, output: gs.Tensor) -> Head | None:
    layers_by_name = {consumer.name: consumer for consumer in affine_consumers(labelled)}
    numbers = {id(node): number for number, node in enumerate(labelled.graph.gs.nodes)}
    tensor, logits = output, ""
    layers: list[str] = []
    nodes: list[int] = []
    steps: list[tuple[Array, Array]] = []
    while len(tensor.inputs) == 1:
        node = tensor.inputs[0]
        data = next((t for t in node.inputs if constant_values(t) is None), node.inputs[0])
        if node.op in ("Flatten", "Reshape"):
            if not layers or not _flattens(labelled, node) or _pooled(labelled, data, layers):
                return None
            between = tuple(sorted([*nodes, numbers[id(node)]]))
            return Head(data.name, logits, tuple(layers[::-1]), between, tuple(steps[::-1]))
        step = _step(node, layers_by_name)
        if not nodes and step is None and node.op in _BEHIND:
            tensor = data
            continue
        if (step is None and node.op not in _PASSED) or (nodes and len(tensor.outputs) != 1):
            return None
        logits = logits or tensor.name
        nodes.append(numbers[id(node)])
        if step is not None:
            steps.append(step)
        if tensor.name in layers_by_name:
            layers.append(tensor.name)
        tensor = data
    return None


def _step(node: gs.Node, layers: dict[str, AffineConsumer]) -> tuple[Array, Array] | None:
    """The node as W and b, None where it is nothing of the kind; an Add of a constant has W = 1."""
    layer = layers.get(node.outputs[0].name)
    if layer is not None and layer.layout.window is None:
        return layer.W[:, :, 0], layer.b
    values = [v.astype(np.float64) for t in node.inputs if (v := constant_values(t)) is not None]
    if node.op == "BatchNormalization" and len(values) == 4:
        scale, offset, mean, variance = values
        scale = scale / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        return np.diag(scale), offset - scale * mean
    if node.op == "Add" and len(values) == 1 and values[0].ndim <= 2 and values[0].size == values[0].shape[-1]:
        return np.eye(values[0].size), values[0].ravel()
    return None


def _flattens(labelled: LabelledGraph, node: gs.Node) -> bool:
    """Whether maps with the channels on axis 1 become rows, all of an image in one."""
    before, after = (labelled.facts.shapes.get(t.name, ()) for t in (node.inputs[0], node.outputs[0]))
    axes = labelled.axes.get(node.inputs[0].name, ())
    channels = [axis for axis, array in enumerate(axes) if array.size and array[0] >= 0]
    return len(before) > 2 and channels == [1] and after == (before[0], int(np.prod(before[1:])))


def _pooled(labelled: LabelledGraph, maps: gs.Tensor, layers: Sequence[str]) -> bool:
    """Whether this is already what it would be replaced by."""
    return len(layers) == 1 and int(np.prod(labelled.facts.shapes[maps.name][2:])) == 1


def linear_start(head: Head, channels: int) -> Refit:
    """What the layers would be without what is between them, on maps that are the same everywhere.

    The product of their matrices, summed over the positions of each channel: exact for one layer on constant maps.
    """
    W, b = head.steps[-1]
    for inner, offset in reversed(head.steps[:-1]):
        W, b = W @ inner, W @ offset + b
    return Refit(W.reshape(len(W), channels, -1).sum(2, keepdims=True), b)


def replace_head(graph: Graph, head: Head, refit: Refit) -> tuple[Graph, str]:
    """A copy of the graph that ends in GlobalAveragePool, Flatten and Gemm, and the name of what the Gemm makes.

    refit: weight (n, C, 1) and bias (n,) of the Gemm.
    """
    changed = graph.copy()
    nodes = [changed.gs.nodes[number] for number in head.nodes]
    tensors = changed.gs.tensors()
    maps, logits = tensors[head.maps], tensors[head.logits]
    constants = [constant_values(tensor) for node in nodes for tensor in node.inputs]
    dtype = next(values.dtype for values in constants if values is not None and values.dtype.kind == "f")
    place = head.nodes[0]
    for node in nodes:
        node.inputs.clear()
        node.outputs.clear()
        changed.gs.nodes.remove(node)
    name = Names(modules(tensors)).fresh("head")
    pooled, flat = (gs.Variable(f"{name}.{part}", dtype=dtype) for part in ("pooled", "flat"))
    weight = gs.Constant(f"{name}.weight", np.ascontiguousarray(refit.weight[:, :, 0].astype(dtype)))
    bias = gs.Constant(f"{name}.bias", refit.bias.astype(dtype))
    changed.gs.nodes[place:place] = [
        gs.Node("GlobalAveragePool", name=pooled.name, inputs=[maps], outputs=[pooled]),
        gs.Node("Flatten", name=flat.name, attrs={"axis": 1}, inputs=[pooled], outputs=[flat]),
        gs.Node("Gemm", name=f"{name}.linear", attrs={"transB": 1}, inputs=[flat, weight, bias], outputs=[logits]),
    ]
    return changed, logits.name
