"""Layers that papers speak of, found by what they are in the graph, never by their names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import onnx_graphsurgeon as gs

from ..channels.blocks import producers, residual_blocks, summed
from ..channels.extras import is_sampler
from ..channels.groups import ChannelGroups

Item = TypeVar("Item")
_THINET_DEPTH = 10  # conv1_1 to conv4_3 of VGG-16: over 90 % of its multiply-accumulates
_RECTIFIERS = ("Relu", "Clip", "ThresholdedRelu")


def inner_convolutions(groups: ChannelGroups) -> frozenset[str]:
    """The convolutions within residual blocks whose channels do not run along the sum: what Luo and Li prune there.

    The first of a basic block, the first two of a bottleneck; empty where there is no block.
    """
    blocks = residual_blocks(groups.labelled)
    inside = frozenset(number for block in blocks for number in block.inside)
    streams = summed(groups, blocks)
    convolutions = _convolutions(groups)
    return frozenset(
        name for name, made in convolutions.items() if name not in streams and all(number in inside for number in made)
    )


def first_convolutions(groups: ChannelGroups) -> frozenset[str]:
    """ThiNet's choice: in residual networks the inner convolutions, else the first ten."""
    inner = inner_convolutions(groups)
    if inner:
        return inner
    nodes = groups.labelled.graph.gs.nodes
    first = [n for n, node in enumerate(nodes) if _is_convolution(node)][:_THINET_DEPTH]
    return frozenset(name for name, made in _convolutions(groups).items() if all(n in first for n in made))


def sampled_convolutions(groups: ChannelGroups) -> frozenset[str]:
    """He's choice: ThiNet's, and the inputs that samplers pick."""
    labelled = groups.labelled
    picked = [labelled.axes[node.outputs[0].name][1] for node in labelled.graph.gs.nodes if is_sampler(node)]
    units = {int(c) for labels in picked for c in groups.component[labels]}
    return first_convolutions(groups) | {g.name for g in groups.free if units.issuperset(g.components.tolist())}


def own_convolutions(groups: ChannelGroups) -> frozenset[str]:
    """He's choice for soft pruning: every convolution by itself, not the channels along a residual sum.

    Placers (channels/extras.py) make the last convolutions of branches such; depthwise ones go with the one before.
    """
    made, nodes = producers(groups), groups.labelled.graph.gs.nodes
    sums = summed(groups, residual_blocks(groups.labelled))
    alone = {
        name
        for name, numbers in made.items()
        if all(nodes[n].op == "Conv" for n in numbers) and sum(map(_is_convolution, (nodes[n] for n in numbers))) == 1
    }
    return frozenset(alone & {group.name for group in groups.free} - sums)


def convolutions(groups: ChannelGroups) -> frozenset[str]:
    """Li's choice: in residual networks the inner convolutions, else all."""
    return inner_convolutions(groups) or frozenset(_convolutions(groups))


def stage_starts(groups: ChannelGroups) -> frozenset[str]:
    """The convolutions at which the map or the width of the network changes, but for the network's first.

    In residual networks: of the blocks whose sum has another shape than that of the block before; else those whose map
    is another than that of the convolution before.
    """
    made, shapes, nodes = _convolutions(groups), groups.labelled.facts.shapes, groups.labelled.graph.gs.nodes
    blocks = residual_blocks(groups.labelled)
    if inner_convolutions(groups):
        starts = _changed(blocks, [block.shape for block in blocks])
        inside = frozenset(number for block in starts for number in block.inside)
    else:
        numbers = [n for n, node in enumerate(nodes) if _is_convolution(node)]
        inside = frozenset(_changed(numbers, [shapes.get(nodes[n].outputs[0].name, ())[2:] for n in numbers]))
    return frozenset(name for name, of in made.items() if any(n in inside for n in of))


def rectified(groups: ChannelGroups) -> frozenset[str]:
    """Groups that one layer makes and only ReLUs read, after a BatchNormalization or not: zeros can be counted."""
    nodes = groups.labelled.graph.gs.nodes
    free = {group.name for group in groups.free}
    single = {name: made[0] for name, made in producers(groups).items() if len(made) == 1 and name in free}
    return frozenset(name for name, number in single.items() if _only_rectified(nodes[number].outputs[0]))


def blocks_of_groups(groups: ChannelGroups) -> dict[str, int]:
    """Inner convolution -> the number of its residual block, from 0 in the order of the graph."""
    blocks, made = residual_blocks(groups.labelled), producers(groups)
    number = {node: count for count, block in enumerate(blocks) for node in block.inside}
    return {name: number[made[name][0]] for name in inner_convolutions(groups)}


def streams(groups: ChannelGroups) -> tuple[str, ...]:
    """The groups along residual sums, one a stage, in the order of the graph."""
    names = summed(groups, residual_blocks(groups.labelled))
    return tuple(group.name for group in groups.groups if group.name in names)


def all_convolutions(groups: ChannelGroups) -> tuple[str, ...]:
    """The free groups that convolutions make, in the order of their first ones."""
    made = _convolutions(groups)
    return tuple(sorted(made, key=lambda name: made[name]))


def _is_convolution(node: gs.Node) -> bool:
    return node.op == "Conv" and int(node.attrs.get("group", 1)) == 1


def _convolutions(groups: ChannelGroups) -> dict[str, tuple[int, ...]]:
    """Free group -> its makers, where all of them are convolutions."""
    nodes = groups.labelled.graph.gs.nodes
    free = {group.name for group in groups.free}
    made = producers(groups)
    return {name: made[name] for name in made if name in free and all(_is_convolution(nodes[n]) for n in made[name])}


def _changed(items: Sequence[Item], shapes: Sequence[tuple[int, ...]]) -> list[Item]:
    """The items whose shape is another than that of the one before."""
    return [item for item, (before, shape) in zip(items[1:], pairwise(shapes), strict=True) if shape != before]


def _only_rectified(tensor: gs.Tensor) -> bool:
    readers = tensor.outputs
    if len(readers) == 1 and (readers[0].op == "BatchNormalization" or _adds_bias(readers[0])):
        return _only_rectified(readers[0].outputs[0])
    return bool(readers) and all(reader.op in _RECTIFIERS for reader in readers)


def _adds_bias(node: gs.Node) -> bool:
    return node.op == "Add" and any(isinstance(t, gs.Constant) for t in node.inputs)
