"""QuantizeLinear and DequantizeLinear: rounding that lets gradients through, so that quantised networks can be tuned.

Between the two a tensor holds whole numbers, but stays a float. Integer operators have no entry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Function, Operator, Site


def _quantize(site: Site) -> Function:
    """clamp(round(x / scale) + zero): the gradient is that of x / scale, and none where it is clamped."""
    axis, block = site.attrs.get("axis", 1), site.attrs.get("block_size", 0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        bounds = torch.iinfo(torch.uint8 if zero is None else zero.dtype)
        levels = x / _along(scale, x, axis, block)
        levels = levels + (levels.round() - levels).detach()
        if zero is not None:
            levels = levels + _along(zero, x, axis, block)
        return levels.clamp(bounds.min, bounds.max)

    return run


def _dequantize(site: Site) -> Function:
    """(x - zero) * scale."""
    axis, block = site.attrs.get("axis", 1), site.attrs.get("block_size", 0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        levels = x.to(scale.dtype)
        if zero is not None:
            levels = levels - _along(zero, x, axis, block).to(scale.dtype)
        return levels * _along(scale, x, axis, block)

    return run


def _along(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """One value for all, one an index of the axis, or one a block of them."""
    if values.numel() == 1:
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return values.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])


OPERATORS = (Operator("DequantizeLinear", _dequantize), Operator("QuantizeLinear", _quantize))
