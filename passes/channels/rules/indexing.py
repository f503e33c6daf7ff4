"""Slice, Gather, Pad: label arrays are indexed like the tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...graph.values import slice_index
from ..extras import is_placer, is_sampler
from . import Rule, between_convolutions

if TYPE_CHECKING:
    from ..cut import Cut
    from ..labels import Array
    from ..sweep import Sweep


def _slice(s: Sweep) -> None:
    """Labels are sliced like the tensor; bounds are rewritten, or become a Gather."""
    data, size = s.axes(0), s.out_shape()
    index = slice_index(s.node.attrs, len(data), [s.value(i) for i in range(1, len(s.node.inputs))])
    if index is None:
        axes = None if s.has(3) and s.value(3) is None else _slice_axes(s)
        for i, labels in enumerate(data):
            if axes is None or i in axes:
                s.keep(labels, "cuts at bounds that are computed")
        s.set(0, [a if axes is not None and i not in axes else s.fixed(size[i]) for i, a in enumerate(data)])
        return
    s.set(0, [a if isinstance(i, slice) and i == slice(None) else a[i] for a, i in zip(data, index, strict=True)])


def _slice_axes(s: Sweep) -> set[int]:
    rank, axes = s.rank(0), s.value(3)
    count = s.shape(1)[0]
    return {int(a) % rank for a in (np.arange(count) if axes is None else np.ravel(axes))}


def _rewrite_slice(cut: Cut) -> None:
    """New bounds where what is left is still evenly spaced, else a Gather of what is left, axis by axis."""
    index = slice_index(cut.node.attrs, len(cut.axes(0)), [cut.value(i) for i in range(1, len(cut.node.inputs))])
    if index is None:
        return
    left: dict[int, Array] = {}
    for axis, (labels, taken) in enumerate(zip(cut.axes(0), index, strict=True)):
        if taken != slice(None) and cut.touched(labels):
            left[axis] = cut.remaining(labels, np.arange(len(labels))[taken])
    if not left:
        return
    others = {a: i for a, i in enumerate(index) if i != slice(None) and a not in left}
    even = {a: bounds for a, positions in left.items() if (bounds := _bounds(positions)) is not None}
    if len(even) == len(left) and not others:
        cut.set_slice({a: even[a] for a in sorted(even)})
    else:
        cut.gather(left, others)


def _bounds(positions: Array) -> tuple[int, int, int] | None:
    """start, end, step of an arithmetic progression going forward, None where the positions are none."""
    if len(positions) == 0:
        return None
    step = int(positions[1] - positions[0]) if len(positions) > 1 else 1
    if step < 1 or (np.diff(positions) != step).any():
        return None
    return int(positions[0]), int(positions[-1]) + 1, step


def _gather(s: Sweep) -> None:
    """Labels are taken at constant indices, which are rewritten; an axis looked up at computed ones stays."""
    data, indices = s.axes(0), s.value(1)
    axis = int(s.node.attrs.get("axis", 0)) % len(data)
    if indices is None:
        s.keep(data[axis], "looks up entries at computed indices")
        taken = list(s.axes(1))
    elif indices.ndim == 0:
        taken = []
        if len(data[axis]) > 1:
            s.keep(data[axis][[int(indices)]], "selects one entry")
    elif is_sampler(s.node):
        s.keep(data[axis], "samples these channels")
        taken = [s.fresh(len(indices))]
    elif is_placer(s.node):
        s.mask(0, axis)  # what is gone is zero where it was
        taken = [s.fresh(len(indices))]
    elif indices.ndim == 1:
        taken = [data[axis][indices.astype(np.int64)]]
    else:
        _keep_unless_fixed(s, data[axis])
        taken = [s.fixed(n) for n in indices.shape]
    if indices is not None and s.kind(1).any():
        s.keep(data[axis], "looks up entries at indices that depend on a size")
    s.set(0, (*data[:axis], *taken, *data[axis + 1 :]))


def _keep_unless_fixed(s: Sweep, labels: Array) -> None:
    s.keep(labels, "looks up a table of entries")


def _rewrite_gather(cut: Cut) -> None:
    """Constant indices count what is left."""
    axis = int(cut.node.attrs.get("axis", 0)) % len(cut.axes(0))
    labels, indices = cut.axes(0)[axis], cut.value(1)
    if indices is not None and is_sampler(cut.node):
        cut.set_input(1, indices[cut.kept(cut.output_axes(0)[axis])])
        return
    if indices is not None and is_placer(cut.node):
        left = cut.kept(labels)
        places = np.where(left, np.cumsum(left), left.sum()) - 1  # the last is the channel of zeros
        cut.set_input(1, places[indices[cut.kept(cut.output_axes(0)[axis])]].astype(np.int64))
        return
    if indices is None or not cut.touched(labels):
        return
    wrapped = np.where(indices < 0, indices + len(labels), indices)
    left = cut.remaining(labels, np.ravel(wrapped))
    cut.set_input(1, left.reshape(() if indices.ndim == 0 else (-1,)).astype(indices.dtype))


def _pad(s: Sweep) -> None:
    """Constant padding adds channels that carry the pad value; other modes copy entries of the axis, which stays."""
    data, size = s.axes(0), s.out_shape()
    pads = _pads(s)
    constant = s.node.attrs.get("mode", "constant") == "constant"
    result = []
    for i, labels in enumerate(data):
        if len(labels) == size[i] and (pads is None or pads[i] == (0, 0)):
            result.append(labels)
        elif pads is None or not constant or not (labels >= 0).any():
            s.keep(labels, "pads this axis")
            result.append(s.fixed(size[i]))
        else:
            before, after = pads[i]
            inner = labels[max(-before, 0) : len(labels) - max(-after, 0)]
            result.append(np.concatenate([s.fresh(max(before, 0)), inner, s.fresh(max(after, 0))]))
    s.set(0, result)


def _pads(s: Sweep | Cut) -> dict[int, tuple[int, int]] | None:
    """Axis -> (before, after), from the attribute (opset < 11) or the inputs; None where they are computed."""
    rank = len(s.axes(0))
    if "pads" in s.node.attrs or "paddings" in s.node.attrs:
        amounts, axes = s.node.attrs.get("pads") or s.node.attrs["paddings"], range(rank)
    else:
        numbers = s.value(1)
        if numbers is None or (s.has(3) and s.value(3) is None):
            return None
        amounts, stated = np.ravel(numbers).tolist(), s.value(3)
        axes = range(rank) if stated is None else [int(a) % rank for a in np.ravel(stated)]
    count = len(amounts) // 2
    table: dict[int, tuple[int, int]] = dict.fromkeys(range(rank), (0, 0))
    table.update({a: (int(amounts[i]), int(amounts[i + count])) for i, a in enumerate(axes)})
    return table


def _rewrite_pad(cut: Cut) -> None:
    """The amounts count the padded channels that are left; cropped channels (negative pads) likewise."""
    pads = _pads(cut)
    if pads is None:
        return
    changed = dict(pads)
    for axis, (before, after) in pads.items():
        inner, outer = cut.axes(0)[axis], cut.output_axes()[axis]
        if (before or after) and (cut.touched(inner) or cut.touched(outer)):
            first = cut.size(outer[:before]) if before > 0 else -cut.size(inner[:-before])
            last = cut.size(outer[len(outer) - after :]) if after > 0 else -cut.size(inner[len(inner) + after :])
            changed[axis] = (first, last)
    if changed != pads:
        amounts = [changed[a][side] for side in (0, 1) for a in sorted(changed)]
        if cut.opset < 11:
            cut.node.attrs["pads"] = amounts
        else:
            cut.set_input(1, np.asarray(amounts, np.int64))
            if cut.has(3):
                cut.set_input(3, np.arange(len(pads), dtype=np.int64))


RULES = (
    Rule(
        "Slice",
        _slice,
        _rewrite_slice,
        samples={
            "start to end": between_convolutions(
                "z = Slice (a, s, e, k)", ", int64[1] s = {2}, int64[1] e = {1000}, int64[1] k = {1}", reads=6
            ),
            "along space": between_convolutions(
                "z = Slice (a, s, e, k, t)",
                ", int64[1] s = {0}, int64[1] e = {8}, int64[1] k = {1}, int64[1] t = {2}",
                reads=4,
            ),
            "backwards": between_convolutions(
                "z = Slice (a, s, e, k, t)",
                ", int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] k = {1}, int64[1] t = {-1}",
            ),
            "bounds as attributes": between_convolutions(
                "z = Slice <axes = [1], starts = [1], ends = [-1]> (a)", opset=9, reads=6
            ),
            "channels and space at once": between_convolutions(
                "p = Slice (a, s, e, k, t)\n z = Pad (p, pads)",
                ", int64[3] s = {1, 0, 0}, int64[3] e = {8, 4, 4}, int64[3] k = {1, 2, 3}, int64[3] t = {1, 2, 2}"
                ", int64[8] pads = {0, 0, 0, 0, 0, 0, 2, 2}",
                reads=7,
            ),
        },
    ),
    Rule(
        "Gather",
        _gather,
        _rewrite_gather,
        samples={
            "indices that repeat": between_convolutions(
                "z = Gather <axis = 1> (a, i)", ", int64[6] i = {7, 0, 2, 2, -3, 5}", reads=6
            ),
            "one entry": between_convolutions(
                "g1 = Gather <axis = 1> (a, i)\n u = Unsqueeze (g1, k)\n z = Concat <axis = 1> (u, a)",
                ", int64 i = {3}, int64[1] k = {1}",
                reads=9,
            ),
        },
    ),
    Rule(
        "Pad",
        _pad,
        _rewrite_pad,
        samples={
            "channels on both sides": between_convolutions(
                "c = Conv (x, w3)\n p = Pad (c, pads)\n z = Add (a, p)",
                ", float[4, 3, 1, 1] w3, int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}",
            ),
            "amounts as an attribute": between_convolutions(
                "c = Conv (x, w3)\n p = Pad <pads = [0, 1, 0, 0, 0, 3, 0, 0], value = 0.5> (c)\n z = Add (a, p)",
                ", float[4, 3, 1, 1] w3",
                opset=9,
            ),
            "reflected space": between_convolutions(
                'p = Pad <mode = "reflect"> (a, pads)\n z = MaxPool <kernel_shape = [3, 3]> (p)',
                ", int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}",
            ),
            "cropped channels": between_convolutions(
                "z = Pad (a, pads)", ", int64[8] pads = {0, -1, 0, 0, 0, -2, 0, 0}", reads=5
            ),
            "some axes": between_convolutions(
                "z = Pad (a, pads, , k)", ", int64[2] pads = {1, 2}, int64[1] k = {1}", opset=18, reads=11
            ),
        },
    ),
)
