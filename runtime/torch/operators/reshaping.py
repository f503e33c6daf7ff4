"""The same elements in another shape or order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import Function, Operator, Site, plain

Ints = Sequence[int]


def axes_of(site: Site, axes: Ints | int | None, position: int = 1) -> list[int] | None:
    """The axes that a node names: an attribute once, an input since opset 13 (18 for most reductions)."""
    if "axes" in site.attrs:
        return [int(a) for a in site.attrs["axes"]]
    if axes is None or not site.has(position):
        return None
    return [axes] if isinstance(axes, int) else [int(a) for a in axes]


def _reshape(site: Site) -> Function:
    """0 keeps a size (unless allowzero), -1 takes what is left."""
    literal = bool(site.attrs.get("allowzero", 0))
    fixed = site.attrs.get("shape")

    def run(x: Tensor, shape: Ints | None = None) -> Tensor:
        target = fixed if shape is None else shape
        assert target is not None
        return x.reshape([x.shape[i] if n == 0 and not literal else n for i, n in enumerate(target)])

    return run


def _flatten(site: Site) -> Function:
    axis = site.attrs.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        if axis == 1 and x.dim() > 1:
            return x.flatten(1)
        at = axis % x.dim() if axis < 0 else axis
        rows = 1
        for n in x.shape[:at]:
            rows *= n
        return x.reshape(rows, x.numel() // rows if rows else -1)

    return run


def _transpose(site: Site) -> Function:
    perm = site.attrs.get("perm")
    return lambda x: x.permute(*(perm if perm is not None else range(x.dim() - 1, -1, -1)))


def _squeeze(site: Site) -> Function:
    def run(x: Tensor, axes: Ints | None = None) -> Tensor:
        chosen = axes_of(site, axes)
        return x.squeeze(tuple(chosen)) if chosen else x.squeeze()

    return run


def _unsqueeze(site: Site) -> Function:
    def run(x: Tensor, axes: Ints | None = None) -> Tensor:
        chosen = axes_of(site, axes) or []
        rank = x.dim() + len(chosen)
        for axis in sorted(a % rank for a in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


def _expand(x: Tensor, shape: Ints) -> Tensor:
    """Broadcasting goes both ways: a 1 in the shape keeps the tensor's size."""
    rank = max(x.dim(), len(shape))
    own = (1,) * (rank - x.dim()) + tuple(x.shape)
    wanted = (1,) * (rank - len(shape)) + tuple(shape)
    return x.expand([n if n != 1 else m for m, n in zip(own, wanted, strict=True)])


def _tile(x: Tensor, repeats: Ints) -> Tensor:
    return x.repeat(*repeats)


def _concat(site: Site) -> Function:
    axis = site.attrs.get("axis", 1)
    return lambda *xs: torch.cat(xs, axis)


def _split(site: Site) -> Function:
    """Into given sizes, or into as many equal parts as there are outputs (the last one may be smaller)."""
    axis, parts = site.attrs.get("axis", 0), site.outputs

    def run(x: Tensor, sizes: Ints | None = None) -> tuple[Tensor, ...]:
        chosen = site.attrs.get("split") or sizes
        if chosen is None:
            size = -(-x.shape[axis] // parts)
            chosen = [min(size, x.shape[axis] - size * i) for i in range(parts)]
        return torch.split(x, list(chosen), axis)

    def only(x: Tensor, sizes: Ints | None = None) -> Tensor:
        return run(x, sizes)[0]

    return run if parts > 1 else only


def _depth_to_space(site: Site) -> Function:
    """Channels (block, block, C) in mode DCR, (C, block, block) in mode CRD, into space."""
    block, crd = site.attrs["blocksize"], site.attrs.get("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        if crd:
            return torch.pixel_shuffle(x, block)
        n, c, h, w = x.shape
        blocks = x.reshape(n, block, block, c // block**2, h, w)
        return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)

    return run


def _space_to_depth(site: Site) -> Function:
    block = site.attrs["blocksize"]

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // block, block, w // block, block)
        return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)

    return run


OPERATORS = (
    Operator("Concat", _concat),
    Operator("DepthToSpace", _depth_to_space),
    Operator("Expand", plain(_expand), host=(1,)),
    Operator("Flatten", _flatten),
    Operator("Reshape", _reshape, host=(1,)),
    Operator("SpaceToDepth", _space_to_depth),
    Operator("Split", _split, host=(1,)),
    Operator("Squeeze", _squeeze, host=(1,)),
    Operator("Tile", plain(_tile), host=(1,)),
    Operator("Transpose", _transpose),
    Operator("Unsqueeze", _unsqueeze, host=(1,)),
)
