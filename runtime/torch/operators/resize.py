"""Resize, Upsample and GridSample: what lies between the pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import Function, Operator, Site, refuse

Array = np.ndarray


class Sampling(NamedTuple):
    """The attributes of a Resize; hashable, so that tables are kept."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool


def _method(site: Site) -> Sampling:
    attrs = site.attrs
    coordinates = attrs.get("coordinate_transformation_mode", "half_pixel" if site.opset > 10 else "asymmetric")
    if coordinates == "tf_crop_and_resize":
        raise refuse(site, "crops while it resizes")
    return Sampling(
        attrs.get("mode", "nearest"),
        coordinates,
        attrs.get("nearest_mode", "round_prefer_floor" if site.opset > 10 else "floor"),
        attrs.get("cubic_coeff_a", -0.75),
        bool(attrs.get("exclude_outside", 0)),
        bool(attrs.get("antialias", 0)),
    )


def _resize(site: Site) -> Function:
    """To sizes, or by scales; of all axes, or of those named."""
    method = _method(site)
    policy = site.attrs.get("keep_aspect_ratio_policy", "stretch")
    axes = site.attrs.get("axes")

    def run(x: Tensor, *rest: Sequence[float] | None) -> Tensor:
        scales = rest[0] if site.opset < 11 else (rest[1] if len(rest) > 1 else None)
        sizes = rest[2] if len(rest) > 2 else None
        chosen = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
        if sizes:
            new = [int(n) for n in sizes]
            ratios = [n / x.shape[a] for n, a in zip(new, chosen, strict=True)]
            if policy != "stretch":
                ratios = [min(ratios) if policy == "not_larger" else max(ratios)] * len(ratios)
                new = [int(x.shape[a] * r + 0.5) for r, a in zip(ratios, chosen, strict=True)]
        else:
            assert scales is not None
            ratios = [float(s) for s in scales]
            new = [int(x.shape[a] * s) for s, a in zip(ratios, chosen, strict=True)]
        return _interpolate(x, dict(zip(chosen, zip(new, ratios, strict=True), strict=True)), method)

    return run


def _upsample(site: Site) -> Function:
    method = Sampling(site.attrs.get("mode", "nearest"), "asymmetric", "floor", -0.75, False, False)

    def run(x: Tensor, scales: Sequence[float] | None = None) -> Tensor:
        by = site.attrs["scales"] if scales is None else scales
        return _interpolate(x, {a: (int(x.shape[a] * s), float(s)) for a, s in enumerate(by)}, method)

    return run


def _interpolate(x: Tensor, targets: dict[int, tuple[int, float]], method: Sampling) -> Tensor:
    """targets: axis -> (new size, scale)."""
    changed = {a: (n, s) for a, (n, s) in targets.items() if n != x.shape[a] or s != 1}
    if not changed:
        return x
    native = _native(x, changed, method)
    if native is not None:
        return native
    for axis, (size, scale) in changed.items():
        x = _along_axis(x, axis, size, scale, method)
    return x


def _native(x: Tensor, changed: dict[int, tuple[int, float]], method: Sampling) -> Tensor | None:
    """What torch's own interpolation computes alike: it resizes all axes behind the first two."""
    space = range(2, x.dim())
    if x.dim() not in (3, 4, 5) or any(a not in space for a in changed) or method.antialias:
        return None
    size = [changed[a][0] if a in changed else x.shape[a] for a in space]
    true = all(abs(n / x.shape[a] - s) < 1e-6 * s for a, (n, s) in changed.items())  # the scale says what the size does
    if method.mode == "nearest":
        whole = all(n % x.shape[a] == 0 for a, (n, _) in changed.items())
        floors = method.coordinates == "asymmetric" and method.nearest == "floor"
        middles = method.coordinates in ("half_pixel", "pytorch_half_pixel") and method.nearest.startswith("round")
        return F.interpolate(x, size) if true and whole and (floors or middles) else None
    modes = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}[method.mode]
    mode = modes[x.dim() - 3]
    corners = method.coordinates == "align_corners"
    if not mode or not true or 1 in size or not (corners or method.coordinates in ("half_pixel", "pytorch_half_pixel")):
        return None
    if method.mode == "cubic" and (method.exclude_outside or method.cubic != -0.75):
        return None
    return F.interpolate(x, size, mode=mode, align_corners=corners)


def _along_axis(x: Tensor, axis: int, size: int, scale: float, method: Sampling) -> Tensor:
    """Weighted sums of the neighbours that a table names."""
    index, weight = _table(x.shape[axis], size, scale, method)
    shape = [1] * x.dim()
    shape[axis] = size
    total = None
    for places, factors in zip(index.T, weight.T, strict=True):
        part = x.index_select(axis, torch.from_numpy(places.copy()).to(x.device))
        if method.mode != "nearest":
            part = part * torch.from_numpy(factors.copy()).to(x).view(shape)
        total = part if total is None else total + part
    assert total is not None
    return total


@lru_cache(maxsize=256)
def _table(before: int, after: int, scale: float, method: Sampling) -> tuple[Array, Array]:
    """(after, taps) places and weights. Coordinates are float32, as ONNX Runtime's are: at ties it decides."""
    x = _coordinates(before, after, np.float32(scale), method.coordinates)
    if method.mode == "nearest":
        return np.clip(_NEAREST[method.nearest](x), 0, before - 1).astype(np.int64)[:, None], np.ones((after, 1))
    stretch = max(1.0, 1 / scale) if method.antialias else 1.0
    support = (1 if method.mode == "linear" else 2) * stretch
    if method.mode == "linear" and not method.antialias:
        x = np.clip(x, 0, before - 1)
    x = x.astype(np.float64)
    reach = int(np.ceil(support))
    places = np.floor(x)[:, None] + np.arange(-reach + 1, reach + 1)
    distance = np.abs(places - x[:, None]) / stretch
    weight = np.maximum(1 - distance, 0) if method.mode == "linear" else _cubic(distance, method.cubic)
    inside = (places >= 0) & (places < before)
    if method.exclude_outside:
        weight = np.where(inside, weight, 0)
    if method.exclude_outside or method.antialias:
        weight = weight / weight.sum(1, keepdims=True)
    return np.clip(places, 0, before - 1).astype(np.int64), weight


def _coordinates(before: int, after: int, scale: np.float32, kind: str) -> Array:
    i, half = np.arange(after, dtype=np.float32), np.float32(0.5)
    if kind == "asymmetric":
        return i / scale
    if kind == "align_corners":
        return i * np.float32(before - 1) / np.float32(after - 1) if after > 1 else np.zeros(1, np.float32)
    if kind == "pytorch_half_pixel" and after == 1:
        return np.zeros(1, np.float32)
    if kind == "half_pixel_symmetric":
        adjustment = np.float32(after) / (scale * np.float32(before))
        centre = np.float32(before) / 2
        return centre * (1 - adjustment) + (i + half) / scale - half
    return (i + half) / scale - half


def _cubic(d: Array, a: float) -> Array:
    """Keys' convolution kernel (Keys 1981, equation 4)."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


_NEAREST: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
}
_GRID_MODES = {
    "bilinear": "bilinear",
    "linear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "cubic": "bicubic",
}


def _grid_sample(site: Site) -> Function:
    mode = _GRID_MODES[site.attrs.get("mode", "linear")]
    padding, corners = site.attrs.get("padding_mode", "zeros"), bool(site.attrs.get("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, corners)


OPERATORS = (
    Operator("GridSample", _grid_sample),
    Operator("Resize", _resize, host=(1, 2, 3)),
    Operator("Upsample", _upsample, host=(1,)),
)
