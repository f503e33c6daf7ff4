"""Shape arithmetic in the sweep: which numbers are sizes of axes that may be cut, and who reads them as data."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.values import DYNAMIC, FOLDABLE, TAINTED, fold_kinds
from .sweep import Sweep

Array = np.ndarray


def follow_sizes(s: Sweep) -> None:
    """Carry on what the numbers of the node at hand depend on; where they are read as data, freeze or pin.

    See values.py for the kinds. A size that is read as data keeps its old value after a cut (`LabelledGraph.frozen`).
    """
    node, labelled = s.node, s.labelled
    if node.op in ("Shape", "Size"):
        _shape(s)
        return
    numbers = [t for t in node.outputs if t.name in s.facts.values]
    if numbers and node.op in FOLDABLE:
        if any(t.name in labelled.kinds for t in node.inputs):
            _folded(s, numbers)
        return
    for position, tensor in enumerate(node.inputs):
        kind = labelled.kinds.get(tensor.name)
        if kind is None or not (kind & TAINTED).any():
            continue
        if (kind == TAINTED | DYNAMIC).any() or tensor.name not in s.facts.values:
            for labels in labelled.depends[tensor.name]:
                s.pin(labels, f"{node.op} reads its size, mixed with a free dimension")
        else:
            labelled.frozen[s.index, position] = labelled.depends[tensor.name]


def _folded(s: Sweep, numbers: list[gs.Tensor]) -> None:
    """Numbers that are computed from sizes; each axis whose size reaches none of them is forgotten."""
    node, labelled = s.node, s.labelled
    args = [s.value(i) for i in range(len(node.inputs))]
    values = [s.facts.values[t.name] for t in numbers]

    def carried(kinds: list[Array]) -> list[Array]:
        return fold_kinds(node.op, node.attrs, args, kinds, values)

    read = [i for i in range(len(node.inputs)) if s.has(i)]
    axes = {id(a): a for i in read for a in labelled.depends.get(node.inputs[i].name, ())}
    marks = {key: carried([_marks(s, i, axis) for i in read]) for key, axis in axes.items()}
    for number, (tensor, kind) in enumerate(zip(numbers, carried([s.kind(i) for i in read]), strict=False)):
        if kind.any():
            reached = {key: marks[key][number] for key in axes if marks[key][number].any()}
            labelled.kinds[tensor.name] = kind
            labelled.depends[tensor.name] = tuple(axes[key] for key in reached)
            labelled.marks[tensor.name] = tuple(reached.values())


def _marks(s: Sweep, position: int, axis: Array) -> Array:
    """Which numbers of an input the size of this axis is in: uint8, as `kind`."""
    name, labelled = s.node.inputs[position].name, s.labelled
    pairs = zip(labelled.depends.get(name, ()), labelled.marks.get(name, ()), strict=True)
    return next((mark for known, mark in pairs if known is axis), np.zeros_like(s.kind(position)))


def _shape(s: Sweep) -> None:
    """The sizes themselves; Size is the product of all of them."""
    node, axes, labelled = s.node, s.axes(0), s.labelled
    read, name = node.inputs[0].name, node.outputs[0].name
    asked = slice(node.attrs.get("start", 0), node.attrs.get("end", len(axes)))

    def shown(numbers: list[int]) -> Array:
        array = np.array(numbers, np.uint8)
        return np.bitwise_or.reduce(array, axis=None, keepdims=False) if node.op == "Size" else array[asked]

    own = [bool((a >= 0).any()) for a in axes]
    free = [DYNAMIC if s.facts.varies(read, i) else 0 for i in range(len(axes))]
    labelled.kinds[name] = np.asarray(shown([TAINTED if o else f for o, f in zip(own, free, strict=True)]))
    marks = {id(a): (a, np.asarray(shown([b is a for b in axes]))) for a, o in zip(axes, own, strict=True) if o}
    reached = [(axis, mark) for axis, mark in marks.values() if mark.any()]
    labelled.depends[name], labelled.marks[name] = tuple(a for a, _ in reached), tuple(m for _, m in reached)
