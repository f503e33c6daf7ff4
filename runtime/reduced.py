"""Large inputs: a model that fixes 4K images is run on smaller ones, wherever its graph runs on them.

Costs and channels are read for the size that the model declares; the proof, and the latencies that are compared, are
taken at the smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import overload

import numpy as np
import onnx

from ..passes.graph.shapes import Facts
from ..passes.graph.spill import copy_except
from .data.random_feeds import required_inputs
from .device import Device
from .session import Runnable
from .trial import runs_on

Feeds = Mapping[str, np.ndarray]
_HEAVY_ELEMENTS, _HEAVY_MACS = 1 << 25, 1 << 37  # of one tensor (128 MiB in float32); of one run, about ten seconds
_SHARES = (16, 8, 4, 2)  # of the sizes; the smallest images first
_MULTIPLE, _SMALLEST = 32, 64  # sizes that strides divide; and that leave something to convolve


@overload
def fitted(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto: ...


@overload
def fitted(model: Runnable, feeds: Feeds) -> Runnable: ...


def fitted(model: Runnable, feeds: Feeds) -> Runnable:
    """The model, or a copy of it that takes inputs of these sizes, where it declares others."""
    proto = onnx.load(model, load_external_data=False) if isinstance(model, str | Path) else model
    wrong = [v.name for v in required_inputs(proto.graph) if v.name in feeds and not _takes(v, feeds[v.name].shape)]
    if not wrong:
        return model
    if isinstance(model, str | Path):
        proto = onnx.load(model)
    copy = copy_except(proto, onnx.ModelProto(), "graph")
    copy_except(proto.graph, copy.graph, "value_info")
    for value in copy.graph.input:
        if value.name in wrong:
            for dim, size in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True):
                dim.dim_value = size
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def _takes(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> bool:
    dims = value.type.tensor_type.shape.dim
    return len(dims) != len(shape) or all(d.dim_value in (0, n) for d, n in zip(dims, shape, strict=True))


def lighter(model: onnx.ModelProto, facts: Facts, macs: float, feeds: Feeds, device: Device = "auto") -> Feeds:
    """Smaller input of the same kind on which the model runs, where one run of these is heavy; else these.

    macs: of one run. Of many samples one is taken; then images alone are made smaller: inputs of four axes and more,
    along axes of 256 and more.
    """
    largest = max((math.prod(shape) for shape in facts.shapes.values()), default=0)
    if largest <= _HEAVY_ELEMENTS and macs <= _HEAVY_MACS:
        return feeds
    many = {array.shape[0] if array.ndim else 1 for array in feeds.values()}
    one = {name: _drawn(array, (1, *array.shape[1:])) for name, array in feeds.items() if array.ndim}
    if len(many) == 1 and many != {1} and runs_on(fitted(model, one), one, device=device):
        if largest / max(many) <= _HEAVY_ELEMENTS and macs / max(many) <= _HEAVY_MACS:
            return one
        feeds = one
    for smaller in _smaller(feeds):
        if runs_on(fitted(model, smaller), smaller, device=device):
            return smaller
    return feeds


def _smaller(feeds: Feeds) -> Iterator[Feeds]:
    for share in _SHARES:
        shapes = {name: _shrunk(array.shape, share) for name, array in feeds.items()}
        if any(shapes[name] != array.shape for name, array in feeds.items()):
            yield {name: _drawn(array, shapes[name]) for name, array in feeds.items()}


def _shrunk(shape: tuple[int, ...], share: int) -> tuple[int, ...]:
    if len(shape) < 4:
        return shape
    return tuple(
        max(_SMALLEST, round(n / share / _MULTIPLE) * _MULTIPLE) if axis and n >= 4 * _SMALLEST else n
        for axis, n in enumerate(shape)
    )


def _drawn(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if shape == array.shape:
        return array
    if array.dtype.kind != "f":
        return np.random.default_rng(3).integers(0, 256 if array.dtype == np.uint8 else 2, shape).astype(array.dtype)
    return np.random.default_rng(3).standard_normal(shape).astype(array.dtype)
