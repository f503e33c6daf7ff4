"""Nodes that are put in so that a layer loses channels of its own: samplers in front of it, placers behind.

Where several layers read one tensor, as those of a residual stream, none of its channels can go for one of them. A
sampler is a Gather in front of a layer that picks the channels which that layer alone reads: all of them at first,
without those that went in the end. Source: He, Zhang, Sun, Channel pruning for accelerating very deep networks, ICCV
2017, section 3.3.

Nor can the filters of a layer go alone where others add up the same stream. A placer puts the channels of one layer at
their places in it:

    padded = Pad(made)              one channel of zeros more
    placed = Gather(padded, at)     `at` names for each channel of the stream the one that holds it, or the zeros
    output = Add(placed, offsets)   (1, channels of the stream, 1, 1): what a filter that is gone gives instead

The stream keeps its width. Source: He, Kang, Dong, Fu, Yang, Soft filter pruning for accelerating deep convolutional
neural networks, IJCAI 2018, section 3 (the authors' index_add_).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

SAMPLER = "onnx_prune.sampler."  # what the name of such a node begins with
PLACER = "onnx_prune.placer."  # what the names of such nodes begin with
OFFSETS = ".offsets"  # what the name of such a constant ends with


def is_sampler(node: gs.Node) -> bool:
    """Whether the node is a sampler that `passes.rewrite.sample` has put there."""
    return node.op == "Gather" and node.name.startswith(SAMPLER)


def is_placer(node: gs.Node) -> bool:
    """Whether the node is the Gather of a placer that `passes.rewrite.place` has put there."""
    return node.op == "Gather" and node.name.startswith(PLACER)


def is_offsets(name: str) -> bool:
    """Whether a constant of that name holds a placer's offsets: no parameter of the model that was given."""
    return name.startswith(PLACER) and name.endswith(OFFSETS)
