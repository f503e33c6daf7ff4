"""Conv and ConvTranspose, 1-D to 3-D."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from . import Function, Operator, Site
from .padding import explicit_pads, same_pads

_CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSE = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def conv(site: Site) -> Function:
    """y[o] = sum_c W[o, c] * x[c] + b[o]; pads that differ between the two ends are put on beforehand."""
    group = int(site.attrs.get("group", 1))
    strides, dilations = site.attrs.get("strides"), site.attrs.get("dilations")
    stride = 1 if strides is None else tuple(strides)
    dilation = 1 if dilations is None else tuple(dilations)
    mode = site.attrs.get("auto_pad", "NOTSET")
    begin, end = explicit_pads(site)

    def same(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padding = same_pads(x.shape[2:], weight.shape[2:], strides, dilations, upper=mode == "SAME_UPPER")
        return _CONVOLVE[weight.dim()](F.pad(x, padding), weight, bias, stride, 0, dilation, group)

    def symmetric(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _CONVOLVE[weight.dim()](x, weight, bias, stride, begin or 0, dilation, group)

    def asymmetric(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _CONVOLVE[weight.dim()](F.pad(x, flat), weight, bias, stride, 0, dilation, group)

    if mode.startswith("SAME"):
        return same
    flat = [p for pair in reversed(list(zip(begin, end, strict=True))) for p in pair]
    return symmetric if begin == end else asymmetric


def _conv_transpose(site: Site) -> Function:
    """The gradient of a convolution by its input; what pads take away is cut from the full result.

    Size: stride * (n - 1) + output_padding + dilation * (k - 1) + 1 - begin - end; with output_shape or auto_pad
    the pads follow from the size.
    """
    attrs = site.attrs
    group = int(attrs.get("group", 1))
    mode = attrs.get("auto_pad", "NOTSET")
    given = attrs.get("output_shape")
    begin, end = explicit_pads(site)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        dims = weight.dim() - 2
        stride = tuple(attrs.get("strides", (1,) * dims))
        dilation = tuple(attrs.get("dilations", (1,) * dims))
        extra = tuple(attrs.get("output_padding", (0,) * dims))
        low, high = begin or (0,) * dims, end or (0,) * dims
        if given is not None or mode.startswith("SAME"):
            full = [
                s * (n - 1) + e + d * (k - 1) + 1
                for s, n, e, d, k in zip(stride, x.shape[2:], extra, dilation, weight.shape[2:], strict=True)
            ]
            size = given[-dims:] if given is not None else [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
            total = [f - n for f, n in zip(full, size, strict=True)]
            small = [t // 2 for t in total]
            large = [t - t // 2 for t in total]
            low, high = (small, large) if mode == "SAME_UPPER" else (large, small)
        padding = tuple(min(a, b) for a, b in zip(low, high, strict=True))
        usable = min(padding, default=0) >= 0 and all(
            e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)
        )
        if tuple(low) == tuple(high) and usable:
            return _TRANSPOSE[weight.dim()](x, weight, bias, stride, tuple(low), extra, group, dilation)
        y = _TRANSPOSE[weight.dim()](x, weight, bias, stride, 0, 0, group, dilation)
        cut = [v for a, b, e in reversed(list(zip(low, high, extra, strict=True))) for v in (-a, e - b)]
        if max(cut) > 0 and bias is not None:  # beyond the full result there is the bias alone
            return F.pad(y - bias.view(-1, *(1,) * dims), cut) + bias.view(-1, *(1,) * dims)
        return F.pad(y, cut)

    return run


OPERATORS = (Operator("Conv", conv), Operator("ConvTranspose", _conv_transpose))
