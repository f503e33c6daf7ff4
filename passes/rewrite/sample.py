"""Put channel samplers in front of the first layer of every residual branch, and take those away that pick all."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..channels.blocks import convolutions_above, producers, residual_blocks, summed
from ..channels.extras import SAMPLER
from ..channels.groups import ChannelGroups


def with_samplers(groups: ChannelGroups) -> onnx.ModelProto:
    """The model with a sampler in front of the first convolution of each branch that has several; the same function.

    See passes/channels/extras.py.
    """
    labelled = groups.labelled
    model = onnx.ModelProto()
    model.CopyFrom(labelled.graph.source)
    made = {output: number for number, node in enumerate(model.graph.node) for output in node.output}
    names = [labelled.graph.gs.nodes[number].outputs[0].name for number in branch_starts(groups)]
    for name in sorted(names, key=lambda name: made[name], reverse=True):
        node = model.graph.node[made[name]]
        size = labelled.facts.shapes[node.input[0]][1]
        indices, output = f"{SAMPLER}{name}.channels", f"{SAMPLER}{name}.output"
        model.graph.initializer.append(numpy_helper.from_array(np.arange(size, dtype=np.int64), indices))
        gather = helper.make_node("Gather", [node.input[0], indices], [output], name=f"{SAMPLER}{name}", axis=1)
        node.input[0] = output
        model.graph.node.insert(made[name], gather)
    return model


def branch_starts(groups: ChannelGroups) -> tuple[int, ...]:
    """The numbers of the convolutions that begin a branch of several: first of those that lead to inner channels."""
    blocks, nodes = residual_blocks(groups.labelled), groups.labelled.graph.gs.nodes
    streams = summed(groups, blocks)
    inner = {number for name, made in producers(groups).items() if name not in streams for number in made}
    convolutions = {
        number for number in inner if nodes[number].op == "Conv" and nodes[number].attrs.get("group", 1) == 1
    }
    return tuple(
        number
        for block in blocks
        for number in sorted(convolutions & block.inside)
        if not convolutions_above(groups.labelled, number, block)
    )


def without_idle_samplers(model: onnx.ModelProto, sizes: dict[str, int]) -> onnx.ModelProto:
    """The model without the samplers that pick every channel of what they read. sizes: tensor -> its channels."""
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    values = {t.name: t for t in kept.graph.initializer}
    renamed: dict[str, str] = {}
    for node in list(kept.graph.node):
        if node.name.startswith(SAMPLER) and values[node.input[1]].dims[0] == sizes.get(node.input[0]):
            renamed[node.output[0]] = node.input[0]
            kept.graph.node.remove(node)
            kept.graph.initializer.remove(values[node.input[1]])
    for node in kept.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    left = [info for info in kept.graph.value_info if info.name not in renamed]
    del kept.graph.value_info[:]
    kept.graph.value_info.extend(left)
    return kept
