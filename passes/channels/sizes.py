"""Shape arithmetic in the sweep: which numbers are sizes of axes that may be cut, and who reads them as data."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.values import DYNAMIC, FOLDABLE, TAINTED, fold_kinds
from .sweep import Sweep


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
    """Numbers that are computed from sizes."""
    node, labelled = s.node, s.labelled
    depends = {id(a): a for t in node.inputs for a in labelled.depends.get(t.name, ())}
    args = [s.value(i) for i in range(len(node.inputs))]
    kinds = [s.kind(i) for i in range(len(node.inputs)) if s.has(i)]
    values = [s.facts.values[t.name] for t in numbers]
    for tensor, kind in zip(numbers, fold_kinds(node.op, node.attrs, args, kinds, values), strict=False):
        if kind.any():
            labelled.kinds[tensor.name] = kind
            labelled.depends[tensor.name] = tuple(depends.values())


def _shape(s: Sweep) -> None:
    """The sizes themselves."""
    node, axes = s.node, s.axes(0)
    read = node.inputs[0].name
    free = [DYNAMIC if s.facts.varies(read, i) else 0 for i in range(len(axes))]
    kind = np.array([TAINTED if (a >= 0).any() else f for a, f in zip(axes, free, strict=True)], np.uint8)
    if node.op == "Size":
        kind = np.asarray(np.bitwise_or.reduce(kind, axis=None) if kind.size else 0, np.uint8)
    else:
        kind = kind[node.attrs.get("start", 0) : node.attrs.get("end", len(kind))]
    name = node.outputs[0].name
    s.labelled.kinds[name], s.labelled.depends[name] = kind, tuple(a for a in axes if (a >= 0).any())
