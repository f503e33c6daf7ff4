"""Where to look when two models are compared: in front of what saturates.

A sigmoid or softmax of large logits is 0 or 1 whatever the logits are, and near 0 it turns a rounding error of the
logit into a relative error of the output. Two models agree there if the logits do.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

_SATURATING = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax", "Tanh", "Exp", "ArgMax", "ArgMin"})
_PASSING = frozenset({"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def observed(graph: onnx.GraphProto) -> dict[str, str]:
    """Graph output -> the tensor to compare for it: the input of the first saturating operator behind it, or itself."""
    makers = {name: node for node in graph.node for name in node.output}
    result = {}
    for value in graph.output:
        name = tensor = value.name
        while tensor in makers and makers[tensor].op_type in _SATURATING | _PASSING:
            node = makers[tensor]
            tensor = node.input[0]
            if node.op_type in _SATURATING:
                name = tensor
        result[value.name] = name
    return result


def taps(chosen: Mapping[str, str]) -> onnx.ModelProto:
    """Nodes and outputs, named after the graph output, that show the chosen tensors; see `open_session(additions=)`."""
    others = {output: tensor for output, tensor in chosen.items() if output != tensor}
    nodes = [helper.make_node("Identity", [tensor], [tap(output)]) for output, tensor in others.items()]
    outputs = [onnx.ValueInfoProto(name=tap(output)) for output in others]  # of the type that ONNX Runtime infers
    return onnx.ModelProto(graph=onnx.GraphProto(node=nodes, output=outputs))


def tap(output: str) -> str:
    return f"onnx_prune.observed.{output}"
