"""Which inputs a convolution's kernel covers at each output position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def patch_table(
    attrs: Mapping[str, Any], space: Sequence[int], grid: Sequence[int], kernel: Sequence[int], *, transposed: bool
) -> Array:
    """The flat input position under each kernel position at each output position, -1 where there is padding.

    i = o * stride - pad + t * dilation; transposed: i = (o + pad - t * dilation) / stride where that is whole.
    space, grid, kernel: sizes of the input, the output and the weight along the 1 to 3 axes. attrs: of the node.
    Returns (prod(grid), prod(kernel)) int64, both row-major.
    """
    axes = range(len(space))
    strides, dilations = (list(attrs.get(k) or [1] * len(space)) for k in ("strides", "dilations"))
    sizes = list(zip(space, grid, kernel, strict=True))
    pads = [_pad(attrs, axis, sizes[axis], len(space), transposed=transposed) for axis in axes]
    table, inside = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for axis in axes:
        o, t = np.arange(grid[axis])[:, None], np.arange(kernel[axis])[None] * dilations[axis]
        if transposed:
            i, rest = np.divmod(o + pads[axis] - t, strides[axis])
        else:
            i, rest = o * strides[axis] - pads[axis] + t, 0
        covered = (i >= 0) & (i < space[axis]) & (rest == 0)
        table = _outer(table * space[axis], np.where(covered, i, 0), np.add)
        inside = _outer(inside, covered, np.logical_and)
    return np.where(inside, table, -1)


def _outer(a: Array, b: Array, combine: np.ufunc) -> Array:
    """(p, q) and (r, s) to (p * r, q * s)."""
    both = combine(a[:, None, :, None], b[None, :, None, :])
    return both.reshape(len(a) * len(b), -1)


def _pad(attrs: Mapping[str, Any], axis: int, sizes: tuple[int, int, int], rank: int, *, transposed: bool) -> int:
    """Padding in front of the axis; sizes: of the input, the output and the weight along it; rank: how many axes."""
    auto = attrs.get("auto_pad", "NOTSET")
    stride, dilation = (list(attrs.get(k) or [1] * rank)[axis] for k in ("strides", "dilations"))
    space, grid, kernel = sizes
    span = (kernel - 1) * dilation + 1
    if transposed:
        extra = list(attrs.get("output_padding") or [0] * rank)[axis]
        total = stride * (space - 1) + extra + span - grid
        stated = auto == "VALID" or (auto == "NOTSET" and not attrs.get("output_shape"))
        front = auto != "SAME_UPPER"
    else:
        total = max((grid - 1) * stride + span - space, 0)
        stated = auto not in ("SAME_UPPER", "SAME_LOWER")
        front = auto == "SAME_LOWER"
    if stated:
        return 0 if auto == "VALID" else int(list(attrs.get("pads") or [0] * 2 * rank)[axis])
    return int(total - total // 2 if front else total // 2)
