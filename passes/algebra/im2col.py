"""Which inputs a convolution's kernel covers at each output position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def patch_table(
    op: str, attrs: Mapping[str, Any], space: Sequence[int], grid: Sequence[int], kernel: Sequence[int]
) -> Array:
    """The flat input position under each kernel position at each output position, -1 where there is padding.

    Conv: i = o * stride - pad + t * dilation. ConvTranspose: i = (o + pad - t * dilation) / stride where that is whole.
    space, grid, kernel: sizes of the input, the output and the weight along the 1 to 3 axes. attrs: of the node.
    Returns (prod(grid), prod(kernel)) int64, both row-major.
    """
    axes = range(len(space))
    strides, dilations = (list(attrs.get(k) or [1] * len(space)) for k in ("strides", "dilations"))
    pads = [_pad(op, attrs, axis, space, grid, kernel) for axis in axes]
    table, inside = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for axis in axes:
        o, t = np.arange(grid[axis])[:, None], np.arange(kernel[axis])[None] * dilations[axis]
        if op == "Conv":
            i, rest = o * strides[axis] - pads[axis] + t, 0
        else:
            i, rest = np.divmod(o + pads[axis] - t, strides[axis])
        covered = (i >= 0) & (i < space[axis]) & (rest == 0)
        table = _outer(table * space[axis], np.where(covered, i, 0), np.add)
        inside = _outer(inside, covered, np.logical_and)
    return np.where(inside, table, -1)


def _outer(a: Array, b: Array, combine: np.ufunc) -> Array:
    """(p, q) and (r, s) to (p * r, q * s)."""
    both = combine(a[:, None, :, None], b[None, :, None, :])
    return both.reshape(len(a) * len(b), -1)


def _pad(
    op: str, attrs: Mapping[str, Any], axis: int, space: Sequence[int], grid: Sequence[int], kernel: Sequence[int]
) -> int:
    """Padding in front of the axis."""
    auto = attrs.get("auto_pad", "NOTSET")
    stride, dilation = (list(attrs.get(k) or [1] * len(space))[axis] for k in ("strides", "dilations"))
    span = (kernel[axis] - 1) * dilation + 1
    if op == "Conv":
        total = max((grid[axis] - 1) * stride + span - space[axis], 0)
        given = auto not in ("SAME_UPPER", "SAME_LOWER")
        front = auto == "SAME_LOWER"
    else:
        extra = list(attrs.get("output_padding") or [0] * len(space))[axis]
        total = stride * (space[axis] - 1) + extra + span - grid[axis]
        given = auto == "VALID" or (auto == "NOTSET" and not attrs.get("output_shape"))
        front = auto != "SAME_UPPER"
    if given:
        return 0 if auto == "VALID" else int(list(attrs.get("pads") or [0] * 2 * len(space))[axis])
    return int(total - total // 2 if front else total // 2)
