"""Pooling over windows and over all of space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Function, Operator, Site, plain
from .padding import same_pads

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Windows:
    """Kernel, strides, dilations and pads of a pooling node; `pads_of` fits them to an input."""

    def __init__(self, site: Site) -> None:
        attrs = site.attrs
        self.kernel = tuple(attrs["kernel_shape"])
        self.dims = len(self.kernel)
        self.strides = tuple(attrs.get("strides", (1,) * self.dims))
        self.dilations = tuple(attrs.get("dilations", (1,) * self.dims))
        self.mode = attrs.get("auto_pad", "NOTSET")
        pads = tuple(attrs.get("pads", (0,) * 2 * self.dims)) if self.mode == "NOTSET" else (0,) * 2 * self.dims
        self.begin, self.end = pads[: self.dims], pads[self.dims :]
        self.ceil = bool(attrs.get("ceil_mode", 0))

    @property
    def native(self) -> bool:
        """Whether torch's own padding argument says it: the same at both ends, at most half of the kernel."""
        small = all(2 * p <= k for p, k in zip(self.begin, self.kernel, strict=True))
        return self.mode in ("NOTSET", "VALID") and self.begin == self.end and not self.ceil and small

    def pads_of(self, x: Tensor) -> tuple[list[int], list[int]]:
        """Pads as F.pad lists them: those that the node gives, and what a ceiled size needs beyond them."""
        size = x.shape[-self.dims :]
        if self.mode.startswith("SAME"):
            upper = self.mode == "SAME_UPPER"
            return same_pads(size, self.kernel, self.strides, self.dilations, upper=upper), [0] * 2 * self.dims
        stated: list[int] = []
        more: list[int] = []
        for axis in reversed(range(self.dims)):
            begin, end, stride = self.begin[axis], self.end[axis], self.strides[axis]
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            room = size[axis] + begin + end - reach
            extra = 0
            if self.ceil and room % stride:
                count = room // stride + 1
                if count * stride < size[axis] + begin:  # a last window must start inside the input or its front pad
                    extra = count * stride - room
            stated += [begin, end]
            more += [0, extra]
        return stated, more


def _max_pool(site: Site) -> Function:
    windows = _Windows(site)
    function = _MAX[windows.dims]
    kernel, strides, dilations = windows.kernel, windows.strides, windows.dilations

    def native(x: Tensor) -> Tensor:
        return function(x, kernel, strides, windows.begin, dilations)

    def padded(x: Tensor) -> Tensor:
        given, more = windows.pads_of(x)
        lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        pads = [a + b for a, b in zip(given, more, strict=True)]
        return function(F.pad(x, pads, value=lowest) if any(pads) else x, kernel, strides, 0, dilations)

    return native if windows.native else padded


def _average_pool(site: Site) -> Function:
    """The mean of a window; what is padded counts only where the node says so, a ceiled size's surplus never."""
    windows = _Windows(site)
    counts = bool(site.attrs.get("count_include_pad", 0))
    kernel, strides, dilations = windows.kernel, windows.strides, windows.dilations
    spread = any(d != 1 for d in dilations)

    def native(x: Tensor) -> Tensor:
        return _MEAN[windows.dims](x, kernel, strides, windows.begin, False, counts)

    def padded(x: Tensor) -> Tensor:
        given, more = windows.pads_of(x)
        total = _window_sum(F.pad(F.pad(x, given), more), kernel, strides, dilations)
        ones = x.new_ones((1, 1, *x.shape[-windows.dims :]))
        inside = F.pad(ones, given, value=1.0 if counts else 0.0)
        return total / _window_sum(F.pad(inside, more), kernel, strides, dilations)

    return native if windows.native and not spread else padded


def _window_sum(x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Tensor:
    if all(d == 1 for d in dilations):
        volume = 1
        for k in kernel:
            volume *= k
        return _MEAN[len(kernel)](x, kernel, strides) * volume
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True), start=2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d].sum(-1)
    return x


def _lp_pool(site: Site) -> Function:
    windows, p = _Windows(site), site.attrs.get("p", 2)

    def run(x: Tensor) -> Tensor:
        given, more = windows.pads_of(x)
        powers = F.pad(F.pad(x.abs() ** p, given), more)
        return _window_sum(powers, windows.kernel, windows.strides, windows.dilations) ** (1 / p)

    return run


def _global_mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def _global_max(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def _global_lp(site: Site) -> Function:
    p = site.attrs.get("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, tuple(range(2, x.dim())), keepdim=True)


OPERATORS = (
    Operator("AveragePool", _average_pool),
    Operator("GlobalAveragePool", plain(_global_mean)),
    Operator("GlobalLpPool", _global_lp),
    Operator("GlobalMaxPool", plain(_global_max)),
    Operator("LpPool", _lp_pool),
    Operator("MaxPool", _max_pool),
)
