"""Choosing, placing and padding elements."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Function, Operator, Site

Ints = Sequence[int]


def _slice(site: Site) -> Function:
    """x[start:end:step] on each named axis; bounds are attributes before opset 10. A negative step flips."""
    attrs = site.attrs

    def run(x: Tensor, *bounds: Ints | None) -> Tensor:
        given = (*bounds, None, None, None, None)
        starts = given[0] or attrs.get("starts", ())
        ends = given[1] or attrs.get("ends", ())
        axes = given[2] or attrs.get("axes", range(len(starts)))
        steps = given[3] or [1] * len(starts)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            x = _slice_axis(x, axis, start, end, step)
        return x

    return run


def _slice_axis(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    size = x.shape[axis]
    if step == 1:
        start, end = (max(v + size, 0) if v < 0 else min(v, size) for v in (start, end))
        return x if (start, end) == (0, size) else x.narrow(axis, start, max(end - start, 0))
    indices = range(size)[slice(start, None if step < 0 and end <= -size - 1 else end, step)]
    if step > 0:
        whole = [slice(None)] * x.dim()
        whole[axis] = slice(indices.start, indices.stop, step)
        return x[tuple(whole)]
    return x.index_select(axis, torch.tensor(list(indices), device=x.device))


def _gather(site: Site) -> Function:
    """The index array takes the place of the axis; negative indices count from the end."""
    axis = site.attrs.get("axis", 0)
    known = site.constants[1] if len(site.constants) > 1 else None
    if isinstance(known, int):
        return lambda x, index: x.select(axis, known)
    positive = known is not None and min(_leaves(known), default=0) >= 0

    def run(x: Tensor, index: Tensor) -> Tensor:
        flat = index.reshape(-1).long()
        if not positive:
            flat = torch.where(flat < 0, flat + x.shape[axis], flat)
        picked = x.index_select(axis, flat)
        at = axis % x.dim()
        return picked.reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return run


def _leaves(values: object) -> list[int]:
    if isinstance(values, list):
        return [leaf for value in values for leaf in _leaves(value)]
    assert isinstance(values, int)
    return [values]


def _wrapped(index: Tensor, size: int) -> Tensor:
    index = index.long()
    return torch.where(index < 0, index + size, index)


def _gather_elements(site: Site) -> Function:
    axis = site.attrs.get("axis", 0)
    return lambda x, index: _along(x, axis, index).gather(axis, _wrapped(index, x.shape[axis]))


def _along(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """The part of x that index reaches: it may be smaller on the other axes."""
    for other in range(x.dim()):
        if other != axis % x.dim() and index.shape[other] < x.shape[other]:
            x = x.narrow(other, 0, index.shape[other])
    return x


def _gather_nd(site: Site) -> Function:
    """The index's last axis is a position in the axes behind `batch_dims`."""
    batch = site.attrs.get("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        places = tuple(_wrapped(i, x.shape[batch + n]) for n, i in enumerate(index.unbind(-1)))
        if not batch:
            return x[places]
        rank = index.dim() - 1
        rows = [
            torch.arange(x.shape[b], device=x.device).view(*(-1 if i == b else 1 for i in range(rank)))
            for b in range(batch)
        ]
        return x[(*rows, *places)]

    return run


def _scatter_nd(site: Site) -> Function:
    """X with the updates in the place of the slices that the index names, or added to them and the like."""
    mode = site.attrs.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        places = tuple(_wrapped(i, n) for i, n in zip(index.unbind(-1), x.shape, strict=False))
        updates = updates.to(x.dtype)
        if mode in ("none", "add"):
            return x.index_put(places, updates, accumulate=mode == "add")
        linear = torch.arange(x.numel(), device=x.device).view(x.shape)[places].reshape(-1)
        flat = x.reshape(-1).scatter_reduce(0, linear, updates.reshape(-1), _REDUCTIONS[mode])
        return flat.view(x.shape)

    return run


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(site: Site) -> Function:
    axis, mode = site.attrs.get("axis", 0), site.attrs.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        index, updates = _wrapped(index, x.shape[axis]), updates.to(x.dtype)
        if mode == "none":
            return x.scatter(axis, index, updates)
        return x.scatter_reduce(axis, index, updates, _REDUCTIONS[mode])

    return run


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(site: Site) -> Function:
    """Pads (begin of every axis, end of every axis); negative ones cut. `edge` and `reflect` go axis by axis."""
    mode, attrs = site.attrs.get("mode", "constant"), site.attrs

    def run(x: Tensor, pads: Ints | None = None, value: float | None = None, axes: Ints | None = None) -> Tensor:
        given = attrs["pads"] if pads is None else pads
        half = len(given) // 2
        chosen = list(range(half)) if axes is None else [a % x.dim() for a in axes]
        both = [(0, 0)] * x.dim()
        for i, axis in enumerate(chosen):
            both[axis] = (given[i], given[half + i])
        if mode == "constant":
            filler = attrs.get("value", 0.0) if value is None else value
            filler = filler[0] if isinstance(filler, list) else filler
            while both and both[0] == (0, 0):
                both.pop(0)
            return F.pad(x, [p for pair in reversed(both) for p in pair], value=filler)
        for axis, (begin, end) in enumerate(both):
            if begin or end:
                x = _pad_axis(x, axis, begin, end, mode)
        return x

    return run


def _pad_axis(x: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    size = x.shape[axis]
    index = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        index = index.clamp(0, size - 1)
    elif mode == "wrap":
        index = index % size
    elif size > 1:
        period = 2 * (size - 1)
        index = index % period
        index = torch.where(index >= size, period - index, index)
    else:
        index = torch.zeros_like(index)
    return x.index_select(axis, index)


def _one_hot(site: Site) -> Function:
    """Values = (off, on); indices beyond `depth` are off."""
    axis = site.attrs.get("axis", -1)

    def run(index: Tensor, depth: int | list[int], values: Tensor) -> Tensor:
        count = depth if not isinstance(depth, list) else depth[0]
        index = index.long()
        index = torch.where(index < 0, index + int(count), index).unsqueeze(axis)
        shape = [1] * index.dim()
        shape[axis] = int(count)
        hot = index == torch.arange(int(count), device=index.device).view(shape)
        return torch.where(hot, values[1], values[0])

    return run


def _cum_sum(site: Site) -> Function:
    exclusive, backwards = site.attrs.get("exclusive", 0), site.attrs.get("reverse", 0)

    def run(x: Tensor, axis: int | list[int]) -> Tensor:
        at = axis if isinstance(axis, int) else axis[0]
        x = x.flip(at) if backwards else x
        y = x.cumsum(at, dtype=x.dtype)
        y = y - x if exclusive else y
        return y.flip(at) if backwards else y

    return run


def _top_k(site: Site) -> Function:
    axis, largest = site.attrs.get("axis", -1), bool(site.attrs.get("largest", 1))

    def run(x: Tensor, k: int | list[int] | None = None) -> tuple[Tensor, Tensor]:
        count = site.attrs["k"] if k is None else k
        found = torch.topk(x, int(count[0] if isinstance(count, list) else count), axis, largest)
        return found.values, found.indices

    return run


def _compress(site: Site) -> Function:
    axis = site.attrs.get("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        index = condition.nonzero().squeeze(1)
        return x.reshape(-1).index_select(0, index) if axis is None else x.index_select(axis, index)

    return run


def _trilu(site: Site) -> Function:
    upper = site.attrs.get("upper", 1)

    def run(x: Tensor, k: int | list[int] | None = None) -> Tensor:
        diagonal = int((k[0] if isinstance(k, list) else k) or 0)
        return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)

    return run


def _reverse_sequence(site: Site) -> Function:
    batch, time = site.attrs.get("batch_axis", 1), site.attrs.get("time_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        x = x.movedim((batch, time), (0, 1))
        steps = torch.arange(x.shape[1], device=x.device)
        ends = lengths.view(-1, 1)
        order = torch.where(steps < ends, ends - 1 - steps, steps)
        rows = torch.arange(x.shape[0], device=x.device).view(-1, 1)
        return x[rows, order].movedim((0, 1), (batch, time))

    return run


OPERATORS = (
    Operator("Compress", _compress),
    Operator("CumSum", _cum_sum, host=(1,)),
    Operator("Gather", _gather),
    Operator("GatherElements", _gather_elements),
    Operator("GatherND", _gather_nd),
    Operator("OneHot", _one_hot, host=(1,)),
    Operator("Pad", _pad, host=(1, 2, 3)),
    Operator("ReverseSequence", _reverse_sequence),
    Operator("ScatterElements", _scatter_elements),
    Operator("ScatterND", _scatter_nd),
    Operator("Slice", _slice, host=(1, 2, 3, 4)),
    Operator("TopK", _top_k, host=(1,)),
    Operator("Trilu", _trilu, host=(1,)),
)
