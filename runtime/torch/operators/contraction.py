"""Products that sum over an axis: Gemm, MatMul, Einsum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Function, Operator, Site, plain


def gemm(site: Site) -> Function:
    """Alpha * A' B' + beta * C, where ' may transpose."""
    alpha, beta = site.attrs.get("alpha", 1.0), site.attrs.get("beta", 1.0)
    turn_a, turn_b = site.attrs.get("transA", 0), site.attrs.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = a.t() if turn_a else a
        weight = b if turn_b else b.t()
        if alpha == 1 and (c is None or (beta == 1 and c.dim() == 1 and c.shape[0] == weight.shape[0])):
            return F.linear(a, weight, c)
        y = F.linear(a, weight)
        y = y if alpha == 1 else alpha * y
        return y if c is None else y + (c if beta == 1 else beta * c)

    return run


def _einsum(site: Site) -> Function:
    equation = site.attrs["equation"].replace(" ", "")
    return lambda *xs: torch.einsum(equation, *xs)


OPERATORS = (
    Operator("Einsum", _einsum),
    Operator("Gemm", gemm),
    Operator("MatMul", plain(torch.matmul)),
)
