"""Where the activations stand that layers read: behind the ReLU, in front of what only moves or pools them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from .labels import LabelledGraph

_POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum")
_MOVES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Pad", "Resize", "Upsample")
_PARTS = ("Identity", "Dropout", "Cast", "Concat", "Slice", "Split", "Gather")
_CARRIERS = frozenset((*_POOLS, *_REDUCTIONS, *_MOVES, *_PARTS))


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor of activations, its channel axis, and how many axes it has."""

    tensor: str
    axis: int
    rank: int


def activations_read(labelled: LabelledGraph) -> dict[str, tuple[Activation, ...]]:
    """What each layer reads -> the activations that it is made of, by the name of the tensor that is read.

    A pool behind a ReLU hides its zeros, so the way leads back over pools, reshapes, concatenations and the like to the
    node that computes the values. Where that tensor has no channels that are known, what is read stands for itself.
    """
    tensors = labelled.graph.gs.tensors()
    read = {c.data: c.data_at.axis for c in labelled.consumers if c.data in labelled.axes}
    return {name: _sites(labelled, tensors[name], axis) for name, axis in read.items()}


def _sites(labelled: LabelledGraph, tensor: gs.Tensor, axis: int) -> tuple[Activation, ...]:
    found: dict[str, Activation | None] = {}
    waiting = [tensor]
    while waiting:
        name = waiting[-1].name
        made = [node for node in waiting.pop().inputs if node.op in _CARRIERS]
        if not made:
            found.setdefault(name, _activation(labelled, name))
        for node in made:
            several = node.inputs if node.op == "Concat" else node.inputs[:1]
            waiting += [t for t in several if not isinstance(t, gs.Constant) and t.name in labelled.axes]
    known = tuple(site for site in found.values() if site is not None)
    if known and len(known) == len(found):
        return known
    return (Activation(tensor.name, axis, len(labelled.axes[tensor.name])),)


def _activation(labelled: LabelledGraph, name: str) -> Activation | None:
    """None where no axis but the first has channels: statistics are means over all other axes."""
    axes = labelled.axes.get(name, ())
    axis = next((a for a, found in enumerate(axes) if a > 0 and (found >= 0).any()), None)
    return None if axis is None else Activation(name, axis, len(axes))
