"""The part of a graph between some tensors and others, as a module: what is in front is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor

from ....passes.rewrite.batch_norm import stored_tensors
from ..gates.samples import TensorBatch
from ..graph_module import GraphModule

_HELD = 1 << 30  # bytes of tensors that are kept; above them the whole graph is run each time


def cut_out(model: onnx.ModelProto, outputs: Sequence[str], inputs: Sequence[str] | None = None) -> onnx.ModelProto:
    """The model with these float tensors as its outputs, and as its inputs; None leaves the inputs as they are."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    nodes = _between(graph, outputs, inputs or ())
    del graph.node[:]
    graph.node.extend(nodes)
    for field, names in ((graph.output, outputs), (graph.input, inputs)):
        if names is not None:
            del field[:]
            field.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in dict.fromkeys(names))
    return part


def _between(graph: onnx.GraphProto, outputs: Sequence[str], inputs: Sequence[str]) -> list[NodeProto]:
    """The nodes that outputs need where the inputs are given, in their order; constants may be left over."""
    needed, nodes = set(outputs).difference(inputs), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(set(node.input).difference(inputs))
    return nodes[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A module, and its inputs for every batch of the data."""

    module: GraphModule
    inputs: Sequence[list[Tensor]]

    def __call__(self, batch: int) -> tuple[Tensor, ...]:
        """The outputs for that batch."""
        return self.module(*self.inputs[batch])


def behind(
    model: onnx.ModelProto,
    first: Sequence[str],
    outputs: Sequence[str],
    data: Sequence[TensorBatch],
    place: torch.device,
) -> Part:
    """From the nodes that make `first` on to `outputs`; what these read is computed once, if it is not too much."""
    whole = GraphModule(cut_out(model, outputs)).to(place).eval().requires_grad_(False)
    crossing = _crossing(model.graph, first, outputs)
    front = GraphModule(cut_out(model, crossing)).to(place).eval().requires_grad_(False)
    held, size = [], 0
    with torch.no_grad():
        for samples in data:
            held.append(list(front(*samples.inputs)))
            size += sum(x.numel() * x.element_size() for x in held[-1])
            if size > _HELD or not all(x.is_floating_point() for x in held[-1]):
                return Part(whole, [samples.inputs for samples in data])
    back = GraphModule(cut_out(model, outputs, crossing)).to(place).eval().requires_grad_(False)
    return Part(back, held)


def _crossing(graph: onnx.GraphProto, first: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """What the nodes from the first of these on read that is made before them."""
    start = min(number for number, node in enumerate(graph.node) if not set(first).isdisjoint(node.output))
    known = {name for name, _ in stored_tensors(graph)} | {""}
    early = {name for node in graph.node[:start] for name in node.output} | {value.name for value in graph.input}
    later = [node for node in _between(graph, outputs, tuple(early - known)) if node.op_type != "Constant"]
    return tuple(dict.fromkeys(n for node in later for n in node.input if n in early - known))
