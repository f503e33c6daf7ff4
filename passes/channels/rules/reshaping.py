"""Operators that keep every element and change the axes it is filed under."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import Rule, between_convolutions

if TYPE_CHECKING:
    from ..cut import Cut
    from ..labels import Array
    from ..sweep import Sweep


def _reshape(s: Sweep) -> None:
    """Axes are merged and divided; where one becomes several, whichever leaves more freedom may lose entries.

    Axes of equal products are matched from the left; see `regroup`.
    """
    if s.has(1) and s.value(1) is None:
        s.opaque("Reshape to a computed shape has no rule")
        return
    s.set(0, regroup(s, list(s.axes(0)), list(s.out_shape())))


def regroup(s: Sweep, before: list[Array], after: list[int]) -> list[Array]:
    """Labels of a reshape: runs of axes with equal products correspond, each run is merged, split, or both."""
    result: list[Array] = []
    i = j = 0
    while i < len(before) or j < len(after):
        i0, j0 = i, j
        left = right = 1
        if i < len(before):
            left, i = len(before[i]), i + 1
        if j < len(after):
            right, j = after[j], j + 1
        while left != right:
            if (left < right or j == len(after)) and i < len(before):
                left, i = left * len(before[i]), i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                raise AssertionError("a reshape changed the number of elements")
        result += _run(s, before[i0:i], after[j0:j])
    return result


def _run(s: Sweep, before: list[Array], after: list[int]) -> list[Array]:
    drop_ones(s, before)
    inner = [a for a in before if len(a) != 1]
    outer = [n for n in after if n != 1]
    if len(inner) == len(outer) == 1:
        made = [inner[0]]
    elif 0 in [len(a) for a in inner]:
        made = [s.fixed(n) for n in outer]
    else:
        made = _refine(s, inner, outer)
    rest = iter(made)
    return [s.fixed(1) if n == 1 else next(rest) for n in after]


def drop_ones(s: Sweep, axes: Sequence[Array]) -> None:
    """An axis of one entry may vanish here, so the entry must be there; a larger axis may have been split for it."""
    for axis in axes:
        if len(axis) == 1:
            s.keep(axis, "needs the one entry of this axis")


def _refine(s: Sweep, before: list[Array], after: list[int]) -> list[Array]:
    """Divide each axis into the factors that both sides share, then merge those of each new axis.

    (2, 768) to (24, 64) goes by way of (2, 12, 64). Where the sides share no finer grid, all axes are merged first.
    """
    left = np.cumprod([len(a) for a in before]).tolist()
    right = np.cumprod(after).tolist()
    grid = sorted({*left, *right})
    if any(b % a for a, b in itertools.pairwise(grid)):
        return _divide(s, _merge(s, before), after)
    factors = [b // a for a, b in itertools.pairwise([1, *grid])]
    fine: list[Array] = []
    for axis, end in zip(before, left, strict=True):
        start = end // len(axis)
        fine += _divide(s, axis, [f for f, g in zip(factors, grid, strict=True) if start < g <= end])
    return [
        _merge(s, [a for a, g in zip(fine, grid, strict=True) if end // size < g <= end])
        for size, end in zip(after, right, strict=True)
    ]


def _merge(s: Sweep, axes: list[Array]) -> Array:
    """Labels of the product of several axes, row-major."""
    if len(axes) == 1:
        return axes[0]
    size = int(np.prod([len(a) for a in axes]))
    moving = [k for k, a in enumerate(axes) if (a >= 0).any()]
    if not moving:
        return s.fixed(size) if not axes else np.broadcast_to(axes[0][0], size)
    if len(moving) == 1:
        shape = [1] * len(axes)
        shape[moving[0]] = -1
        return np.broadcast_to(axes[moving[0]].reshape(shape), [len(a) for a in axes]).reshape(-1)
    flat = s.fresh(size)
    s.split(flat.reshape([len(a) for a in axes]), axes)
    return flat


def _divide(s: Sweep, flat: Array, sizes: list[int]) -> list[Array]:
    """Labels of the axes that one axis is divided into."""
    if len(sizes) == 1:
        return [flat]
    if not (flat >= 0).any():
        return [np.broadcast_to(flat[0], n) for n in sizes]
    block = flat.reshape(sizes)
    for k in range(len(sizes)):  # the channels vary along one axis only: no choice is left
        first = block[tuple(slice(None) if i == k else slice(0, 1) for i in range(len(sizes)))]
        if (block == first).all():
            return [first.reshape(-1) if i == k else s.fixed(n) for i, n in enumerate(sizes)]
    axes = [s.fresh(n) for n in sizes]
    s.split(block, axes)
    return axes


def _rewrite_reshape(cut: Cut) -> None:
    if "shape" in cut.node.attrs:  # opset < 5
        return
    cut.set_sizes(1, dict(enumerate(cut.output_axes())))


def _flatten(s: Sweep) -> None:
    """Two runs of axes are merged: a channel becomes a block of features."""
    data = list(s.axes(0))
    axis = int(s.node.attrs.get("axis", 1))
    axis = axis + len(data) if axis < 0 else axis
    parts = []
    for group, size in zip((data[:axis], data[axis:]), s.out_shape(), strict=True):
        parts += _run(s, group, [size])
    s.set(0, parts)


def _transpose(s: Sweep) -> None:
    """Labels are permuted like the axes."""
    data = s.axes(0)
    s.set(0, [data[p] for p in s.node.attrs.get("perm") or range(len(data) - 1, -1, -1)])


def _depth_to_space(s: Sweep) -> None:
    """Channel (b1, b2, c), or (c, b1, b2) in CRD mode, becomes position (b1, b2) of channel c."""
    data, block = s.axes(0), int(s.node.attrs["blocksize"])
    crd = s.node.attrs.get("mode", "DCR") == "CRD"
    shape = (-1, block, block) if crd else (block, block, -1)
    parts = data[1].reshape(shape)
    labels = parts[:, 0, 0] if crd else parts[0, 0, :]
    s.tie(np.broadcast_to(labels[:, None, None] if crd else labels, parts.shape), parts)
    for axis in data[2:]:
        s.keep(axis, "rearranges this axis")
    s.set(0, (data[0], labels, *(s.fixed(n) for n in s.out_shape()[2:])))


def _space_to_depth(s: Sweep) -> None:
    """Position (b1, b2) of channel c becomes channel (b1, b2, c)."""
    data, block = s.axes(0), int(s.node.attrs["blocksize"])
    for axis in data[2:]:
        s.keep(axis, "rearranges this axis")
    s.set(0, (data[0], np.tile(data[1], block * block), *(s.fixed(n) for n in s.out_shape()[2:])))


def _flat_sample(expression: str, weights: str = "") -> str:
    return f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3, 2, 2] x) => (float[2, 5] y)
        <float[8, 3, 1, 1] w1, float[8] b1, float[32, 5] w2{weights}> {{
          a = Conv (x, w1, b1)
          {expression}
          y = MatMul (z, w2)
        }}
        """


_SHUFFLE = """
u = Reshape (a, five)
v = Transpose <perm = [0, 2, 1, 3, 4]> (u)
z = Reshape (v, four)
"""
RULES = (
    Rule(
        "Reshape",
        _reshape,
        _rewrite_reshape,
        samples={
            "to rows by -1": _flat_sample("z = Reshape (a, shape)", ", int64[2] shape = {0, -1}"),
            "to rows by sizes": _flat_sample("z = Reshape (a, shape)", ", int64[2] shape = {2, 32}"),
            "to rows and back": _flat_sample(
                "f = Reshape (a, shape)\n m = MatMul (f, w3)\n r = Reshape (m, back)\n"
                "c = Conv (r, w4)\n z = Reshape (c, shape)",
                ", int64[2] shape = {2, 32}, float[32, 24] w3, int64[4] back = {-1, 6, 2, 2}, float[8, 6, 1, 1] w4",
            ),
            "a channel shuffle": between_convolutions(
                _SHUFFLE, ", int64[5] five = {1, 2, 4, 4, 4}, int64[4] four = {1, 8, 4, 4}"
            ),
            "a channel shuffle by 0 and -1": between_convolutions(
                _SHUFFLE, ", int64[5] five = {0, 4, -1, 4, 4}, int64[4] four = {1, -1, 4, 4}"
            ),
        },
    ),
    Rule(
        "Flatten",
        _flatten,
        samples={
            "first axis": _flat_sample("z = Flatten (a)"),
            "axis from the end": _flat_sample("z = Flatten <axis = -3> (a)"),
        },
    ),
    Rule(
        "Transpose",
        _transpose,
        samples={
            "channels last and back": between_convolutions(
                "t = Transpose <perm = [0, 2, 3, 1]> (a)\n r = Add (t, v)\n z = Transpose <perm = [0, 3, 1, 2]> (r)",
                ", float[8] v",
            ),
        },
    ),
    Rule(
        "DepthToSpace",
        _depth_to_space,
        samples={
            "depth, column, row": between_convolutions("z = DepthToSpace <blocksize = 2> (a)", size="8, 8", reads=2),
            "column, row, depth": between_convolutions(
                'z = DepthToSpace <blocksize = 2, mode = "CRD"> (a)', size="8, 8", reads=2
            ),
        },
    ),
    Rule(
        "SpaceToDepth",
        _space_to_depth,
        samples={
            "blocks of two": between_convolutions("z = SpaceToDepth <blocksize = 2> (a)", size="2, 2", reads=32),
        },
    ),
)
