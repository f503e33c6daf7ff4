"""Pads of windows that slide: explicit ones, and those that keep the size."""

from __future__ import annotations

from collections.abc import Sequence

from . import Site

Ints = Sequence[int]


def explicit_pads(site: Site) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(begin, end) of the attribute `pads`, one number a spatial axis; empty where there is none."""
    pads = [int(p) for p in site.attrs.get("pads", ())] if site.attrs.get("auto_pad", "NOTSET") == "NOTSET" else []
    half = len(pads) // 2
    return tuple(pads[:half]), tuple(pads[half:])


def same_pads(size: Ints, kernel: Ints, strides: Ints | None, dilations: Ints | None, *, upper: bool) -> list[int]:
    """Pads for ceil(n / stride) outputs, as torch lists them: last axis first, (begin, end) each."""
    pads: list[int] = []
    for axis in reversed(range(len(size))):
        stride = int(strides[axis]) if strides else 1
        reach = (int(dilations[axis]) if dilations else 1) * (int(kernel[axis]) - 1) + 1
        total = max((-(-size[axis] // stride) - 1) * stride + reach - size[axis], 0)
        small, large = total // 2, total - total // 2
        pads += (small, large) if upper else (large, small)
    return pads
