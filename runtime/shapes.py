"""The concrete shape of every tensor, found by running the model once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..passes.graph.inference import inferred
from ..passes.graph.spill import without_weights
from .device import Device
from .session import Runnable, open_session

Shape = tuple[int, ...]


def tensor_shapes(
    model: Runnable,
    feeds: Mapping[str, np.ndarray],
    *,
    device: Device = "auto",
    base_dir: str | Path | None = None,
) -> dict[str, Shape]:
    """Return the shape of every tensor of the main graph: inputs, initializers and node outputs.

    Sequences, maps and optionals have none and are left out. Each tensor gets a Shape node and only those are fetched,
    so no activation outlives its readers. Raises ReadError if the model does not run on `feeds`.
    """
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
    names = _computed_tensors(proto)
    asked = {f"onnx_prune.shape_of.{index}": name for index, name in enumerate(names)}
    session = open_session(model, device=device, optimise=False, base_dir=base_dir, additions=_shape_nodes(asked))
    measured = session.run(feeds, asked)
    shapes = {name: tuple(array.shape) for name, array in feeds.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    return shapes | {name: tuple(int(size) for size in measured[output]) for output, name in asked.items()}


def _computed_tensors(model: onnx.ModelProto) -> list[str]:
    """Outputs of the main graph's nodes, in order, less those that are known to be no tensors."""
    graph = inferred(without_weights(model)).graph
    others = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.WhichOneof("value") not in (None, "tensor_type")
    }
    return [name for node in model.graph.node for name in node.output if name and name not in others]


def _shape_nodes(asked: Mapping[str, str]) -> onnx.ModelProto:
    nodes = [helper.make_node("Shape", [name], [output]) for output, name in asked.items()]
    outputs = [helper.make_tensor_value_info(output, TensorProto.INT64, [None]) for output in asked]
    return onnx.ModelProto(graph=onnx.GraphProto(node=nodes, output=outputs))
