"""The twin for the proof: the original graph with the consumers of removed channels zeroed.

Cutting a unit equals zeroing its consumed slices, not the produced ones: after a BatchNorm a zeroed filter is not zero.
Where two activations are contracted there is no weight to zero: a mask in front of the node does it.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from .constants import edit_constants, gone
from .labels import ConstantAxes, Labels, Mask
from .model import Graph

Array = np.ndarray


def silence(labels: Labels, removed: Array) -> Graph:
    """The original graph with what reads the removed labels (one bool a label) silenced. Interface and sizes stay."""
    graph = labels.graph.copy()
    consumed = np.zeros(labels.count, bool)
    for array in labels.consumed:
        consumed[array[array >= 0]] = True
    silenced = consumed & removed

    def zero(constant: ConstantAxes, values: Array) -> Array:
        values = values.copy()
        nothing = np.broadcast_to(labels.zeros.get(constant.name, np.zeros((), values.dtype)), values.shape)
        for axis, found in enumerate(constant.labels):
            index = (slice(None),) * axis + (gone(found, silenced),)
            values[index] = nothing[index]
        return values

    edit_constants(graph, labels, silenced, zero)
    for number, mask in enumerate(labels.masks):
        _insert_mask(graph, labels, removed, mask, number)
    return graph


def _insert_mask(graph: Graph, labels: Labels, removed: Array, mask: Mask, number: int) -> None:
    original = labels.graph.gs.nodes[mask.node]
    tensor = original.inputs[mask.input]
    axis = labels.axes[tensor.name][mask.axis]
    zeros = gone(axis, removed)
    if not zeros.any():
        return
    node = next(n for n in graph.gs.nodes if n.outputs and n.outputs[0].name == original.outputs[0].name)
    shape = [1] * len(labels.axes[tensor.name])
    shape[mask.axis] = -1
    dtype = helper.tensor_dtype_to_np_dtype(labels.facts.dtypes.get(tensor.name, 1))
    factor = gs.Constant(f"silence_{number}", (~zeros).astype(dtype).reshape(shape))
    output = gs.Variable(f"silenced_{number}")
    made = gs.Node("Mul", name=output.name, inputs=[node.inputs[mask.input], factor], outputs=[output])
    node.inputs[mask.input] = output
    graph.gs.nodes.insert(graph.gs.nodes.index(node), made)
