"""Tensors made of sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dtypes import TORCH, to_torch
from . import Context, Function, Operator, Site, plain


def _constant_of_shape(site: Site) -> Function:
    value = to_torch(site.attrs["value"]) if "value" in site.attrs else torch.zeros(1)
    assert value is not None
    fill, dtype = value.item(), value.dtype
    return lambda context, shape: torch.full(tuple(shape), fill, dtype=dtype, device=context.device)


def _eye_like(site: Site) -> Function:
    """Ones on the k-th diagonal, of the given type or the tensor's own."""
    dtype, k = site.attrs.get("dtype"), site.attrs.get("k", 0)

    def run(x: Tensor) -> Tensor:
        ones = torch.ones(x.shape, dtype=x.dtype if dtype is None else TORCH[dtype], device=x.device)
        return ones.triu(k).tril(k)

    return run


def _range(context: Context, start: float, limit: float, delta: float) -> Tensor:
    return torch.arange(start, limit, delta, device=context.device)


def _non_zero(x: Tensor) -> Tensor:
    return x.nonzero().t()


def _shape(site: Site) -> Function:
    """Only where a tensor is wanted ahead of the run: in a run sizes are Python's."""
    start, end = site.attrs.get("start", 0), site.attrs.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


OPERATORS = (
    Operator("ConstantOfShape", _constant_of_shape, host=(0,), context=True),
    Operator("EyeLike", _eye_like),
    Operator("NonZero", plain(_non_zero)),
    Operator("Range", plain(_range), host=(-1,), context=True),
    Operator("Shape", _shape),
    Operator("Size", plain(_size)),
)
