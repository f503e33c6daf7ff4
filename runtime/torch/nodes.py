"""The nodes of a graph that a run needs."""

from __future__ import annotations

import onnx
import torch

from ...passes.errors import UsageError
from .host import SIZES
from .operators import FIX, find_operator


def live_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that an output depends on, in order."""
    needed = {value.name for value in graph.output}
    live = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            live.append(node)
            needed.update(node.input)
    return live[::-1]


def check_entries(nodes: list[onnx.NodeProto]) -> None:
    """Raise UsageError for the first node whose operator torch cannot do here."""
    for node in nodes:
        if node.op_type != "Constant" and node.op_type not in SIZES and find_operator(node) is None:
            name = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
            raise UsageError(
                f"operator {name} cannot be trained: it has no entry in torch",
                where=f"node '{node.name or next(iter(node.output), '')}'",
                fix=FIX,
                operator=name,
            )


def constant_of(node: onnx.NodeProto) -> torch.Tensor | None:
    """What a Constant node holds other than as a tensor."""
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if attribute.name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    return None
