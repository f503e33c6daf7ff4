"""Sums, means and extremes over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import Function, Operator, Site
from .reshaping import axes_of

Ints = Sequence[int]
Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _reduce(function: Reduce) -> Callable[[Site], Function]:
    """Over the named axes, over all where none is named."""

    def build(site: Site) -> Function:
        keep, empty_is_nothing = bool(site.attrs.get("keepdims", 1)), bool(site.attrs.get("noop_with_empty_axes", 0))

        def run(x: Tensor, axes: Ints | None = None) -> Tensor:
            chosen = axes_of(site, axes)
            if not chosen:
                chosen = [] if empty_is_nothing else list(range(x.dim()))
            return function(x, chosen, keep) if chosen or not empty_is_nothing else x

        return run

    return build


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(function: Function) -> Callable[[Site], Function]:
    def build(site: Site) -> Function:
        axis, keep = site.attrs.get("axis", 0), bool(site.attrs.get("keepdims", 1))
        if site.attrs.get("select_last_index", 0):
            return lambda x: x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)
        return lambda x: function(x, axis, keepdim=keep)

    return build


_SUMS: dict[str, Reduce] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}

OPERATORS = (
    *(Operator(op, _reduce(function), host=(1,)) for op, function in _SUMS.items()),
    Operator("ArgMax", _arg(torch.argmax)),
    Operator("ArgMin", _arg(torch.argmin)),
)
