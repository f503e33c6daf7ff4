"""Channel samplers: a Gather in front of a layer that picks the channels which that layer alone reads.

Where several layers read one tensor, as those of a residual stream, none of its channels can go for one of them. A
sampler, which takes all of them at first, makes the layer's inputs channels of their own: those that go are left out
of its indices. Source: He, Zhang, Sun, Channel pruning for accelerating very deep networks, ICCV 2017, section 3.3.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

SAMPLER = "onnx_prune.sampler."  # what the name of such a node begins with


def is_sampler(node: gs.Node) -> bool:
    """Whether the node is a sampler that `passes.rewrite.sample` has put there."""
    return node.op == "Gather" and node.name.startswith(SAMPLER)
