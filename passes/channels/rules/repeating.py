"""Axes of one entry, which are stretched, dropped and put in, and copies: Expand, Tile, Squeeze, Unsqueeze."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...graph.values import DYNAMIC
from . import Rule, between_convolutions
from .reshaping import drop_ones

if TYPE_CHECKING:
    from ..cut import Cut
    from ..labels import Array
    from ..sweep import Sweep


def _expand(s: Sweep) -> None:
    """A stretched axis holds copies of one entry: as many as the target says, so they can be removed."""
    if s.value(1) is None:
        s.opaque("Expand to a computed shape has no rule")
        return
    data, size, kind = s.axes(0), s.out_shape(), s.kind(1)
    result: list[Array] = []
    for back in range(len(size), 0, -1):
        labels = data[len(data) - back] if back <= len(data) else s.fixed(1)
        if len(labels) == size[-back]:
            result.append(labels)
            continue
        s.keep(labels, "stretches it over an axis")
        free = back <= len(kind) and kind[-back] & DYNAMIC
        result.append(s.fixed(size[-back]) if free else s.fresh(size[-back]))
    s.set(0, result)


def _rewrite_expand(cut: Cut) -> None:
    """A target of 1 says "as it is" and stays."""
    sizes, axes = cut.value(1), cut.output_axes()
    offset = len(axes) - (len(axes) if sizes is None else len(sizes))
    cut.set_sizes(1, {i - offset: a for i, a in enumerate(axes) if i >= offset}, unless=1)


def _tile(s: Sweep) -> None:
    """Copies one after the other: index j of the result is index j mod n of the data."""
    data, size = s.axes(0), s.out_shape()
    repeats, kind = s.value(1), s.kind(1)
    result: list[Array] = []
    for i, labels in enumerate(data):
        if len(labels) == size[i]:
            result.append(labels)
        elif repeats is None or kind[i] or len(labels) == 1:
            s.keep(labels, "repeats this axis a number of times that is computed")
            result.append(s.fixed(size[i]))
        else:
            result.append(np.tile(labels, size[i] // len(labels)))
    s.set(0, result)


_AXES_AS_INPUT = 13  # the opset since which Squeeze reads its axes as an input


def _ones(s: Sweep) -> None:
    """Squeeze and Unsqueeze: axes of size 1 come and go."""
    drop_ones(s, s.axes(0))
    rest = iter([a for a in s.axes(0) if len(a) != 1])
    s.set(0, [s.fixed(1) if n == 1 else next(rest) for n in s.out_shape()])


def _squeeze(s: Sweep) -> None:
    """As `_ones`; without axes every axis of one entry goes, which no axis of channels may come to be.

    Where the sizes are always the same, the axes are written in after the cut. Else two of each axis' channels stay.
    """
    if _names_no_axes(s) and _varies(s):
        for labels in s.axes(0):
            s.keep(labels[:2], "without axes would drop an axis of one entry, so that two of its entries stay")
    _ones(s)


def _names_no_axes(node: Sweep | Cut) -> bool:
    return "axes" not in node.original.attrs and not node.has(1)


def _varies(node: Sweep | Cut) -> bool:
    """Whether some size of the data may be another one for other inputs."""
    name = node.original.inputs[0].name
    return any(node.labelled.facts.varies(name, axis) for axis in range(node.rank(0)))


def _name_axes(cut: Cut) -> None:
    """The axes that go, where none are written down and a cut leaves one entry of another."""
    data = cut.axes(0)
    if not _names_no_axes(cut) or _varies(cut) or not any(cut.touched(axis) for axis in data):
        return
    going = [i for i, axis in enumerate(data) if len(axis) == 1]
    if cut.labelled.graph.opset < _AXES_AS_INPUT:
        cut.node.attrs["axes"] = going
    else:
        cut.set_input(1, np.array(going, np.int64))


# Packed query, key and value: (3, heads, dimensions) of which only whole heads can go.
_PACKED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2, 4, 6] x) => (float[2, 4, 5] y)
    <float[6, 24] wqkv, float[24] b, float[8, 5] wo, int64[5] five = {0, 4, 3, 4, 2}, int64[1] one = {2},
     int64[3] parts = {1, 1, 1}, int64[3] flat = {2, 4, 8}> {
      m = MatMul (x, wqkv)
      h = Add (m, b)
      r = Reshape (h, five)
      q1, k1, v1 = Split <axis = 2> (r, parts)
      q = Squeeze (q1, one)
      k = Squeeze (k1, one)
      v = Squeeze (v1, one)
      qh = Transpose <perm = [0, 2, 1, 3]> (q)
      kh = Transpose <perm = [0, 2, 3, 1]> (k)
      vh = Transpose <perm = [0, 2, 1, 3]> (v)
      s = MatMul (qh, kh)
      p = Softmax <axis = -1> (s)
      o = MatMul (p, vh)
      t = Transpose <perm = [0, 2, 1, 3]> (o)
      c = Reshape (t, flat)
      y = MatMul (c, wo)
    }
    """
RULES = (
    Rule(
        "Expand",
        _expand,
        _rewrite_expand,
        samples={
            "of pooled channels": between_convolutions(
                "p = GlobalMaxPool (a)\n q = Expand (p, shape)\n z = Mul (q, a)", ", int64[4] shape = {1, 8, 4, 4}"
            ),
            "of one number to the channels": between_convolutions(
                "e = Expand (one, shape)\n z = Add (e, a)", ", float[1] one = {0.5}, int64[4] shape = {1, 8, 1, 1}"
            ),
            "along space": between_convolutions(
                "p = GlobalMaxPool (a)\n z = Expand (p, shape)", ", int64[4] shape = {1, 1, 3, 3}", size="3, 3"
            ),
        },
    ),
    Rule(
        "Tile",
        _tile,
        samples={
            "channels and space": between_convolutions(
                "z = Tile (a, repeats)", ", int64[4] repeats = {1, 2, 1, 2}", size="4, 8", reads=16
            ),
        },
    ),
    Rule(
        "Squeeze",
        _squeeze,
        _name_axes,
        samples={
            "of all axes of one entry": between_convolutions(
                "p = GlobalMaxPool (a)\n q = Squeeze (p)\n z = Reshape (q, back)",
                ", int64[4] back = {1, -1, 1, 1}",
                size="1, 1",
            ),
            "a fused projection of heads": _PACKED,
            "of pooled channels": between_convolutions(
                "p = GlobalMaxPool (a)\n q = Squeeze (p, k)\n z = Unsqueeze (q, k)",
                ", int64[2] k = {2, 3}",
                size="1, 1",
            ),
        },
    ),
    Rule("Unsqueeze", _ones),
)
