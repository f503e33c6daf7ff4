"""Constants of a graph under a removal: what each loses, under which name it goes on, and the edit itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.model import Edited, Graph, constant_values, edited, is_large, make_constant, set_constant
from ..graph.names import Names
from .labels import ConstantAxes, LabelledGraph

Array = np.ndarray


def gone(axis: Array, removed: Array) -> Array:
    """One bool an index of an axis of labels: whether its channel is removed (one bool a label)."""
    mask = axis >= 0
    mask[mask] = removed[axis[mask]]
    return mask


def kept(axis: Array, removed: Array) -> Array:
    """One bool an index of an axis of labels: whether it is left, as a position is that is no channel."""
    return ~gone(axis, removed)


def cut_names(labelled: LabelledGraph, removed: Array) -> dict[tuple[str, str], str]:
    """The name under which the cut model holds each constant that loses something, by (constant, use).

    Uses of a shared vector that lose the same entries stay one tensor, others get a copy each, named after the
    constant and a number. The name itself stays with whoever loses nothing, else with the first use.
    """
    cuts: dict[str, dict[str, bytes]] = {}
    for constant in labelled.constants.values():
        masks = [gone(axis, removed) for axis in constant.labels]
        cut = np.concatenate(masks).tobytes() if any(lost.any() for lost in masks) else b""
        cuts.setdefault(constant.name, {})[constant.use] = cut
    taken: Names | None = None
    tensors: Mapping[str, gs.Tensor] | None = None
    names: dict[tuple[str, str], str] = {}
    for name, uses in cuts.items():
        if not any(uses.values()):
            continue
        tensors = labelled.graph.gs.tensors() if tensors is None else tensors
        whole = not all(uses.values()) or ("" not in uses and not readers(tensors[name]) <= set(uses))
        chosen = {b"": name} if whole else {}
        for use, cut in uses.items():
            if cut and cut not in chosen:
                taken = labelled.graph.names() if chosen and taken is None else taken
                chosen[cut] = taken.numbered(name) if chosen and taken is not None else name
            if cut:
                names[name, use] = chosen[cut]
    return names


def edit_constants(
    graph: Graph, labelled: LabelledGraph, removed: Array, edit: Callable[[ConstantAxes, Array], Array]
) -> None:
    """Put `edit(constant, values)` in the place of every constant that loses something, use by use.

    graph: a copy of the labelled one.
    """
    names = cut_names(labelled, removed)
    if not names:
        return
    source, tensors = labelled.graph.gs.tensors(), graph.gs.tensors()
    nodes = {node.outputs[0].name: node for node in graph.gs.nodes if node.outputs}
    written: dict[str, gs.Tensor] = {}
    for (name, use), new in names.items():
        if new not in written:
            values = _edited(source[name], partial(edit, labelled.constants[name, use]))
            if new == name:
                set_constant(tensors[name], values)
            written[new] = tensors[name] if new == name else make_constant(new, values)
        if new != name:
            inputs = nodes[use].inputs
            for position, tensor in enumerate(inputs):
                if tensor is tensors[name]:
                    inputs[position] = written[new]


def _edited(tensor: gs.Tensor, edit: Callable[[Array], Array]) -> Array | Edited:
    """The values of a constant after an edit: those of a large one are made when they are read."""

    def compute() -> Array:
        values = constant_values(tensor)
        assert values is not None
        return edit(values)

    return edited(tensor, compute) if isinstance(tensor, gs.Constant) and is_large(tensor) else compute()


def readers(tensor: gs.Tensor) -> set[str]:
    """The uses of a constant: the first outputs of the nodes that read it."""
    return {node.outputs[0].name for node in tensor.outputs}
