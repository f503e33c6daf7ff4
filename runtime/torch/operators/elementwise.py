"""Arithmetic, comparisons, activations: one element at a time, with broadcasting."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dtypes import TORCH
from . import Context, Function, Operator, Site, plain


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Of whole numbers the quotient truncated toward zero."""
    whole = isinstance(a, int | Tensor) and isinstance(b, int | Tensor)
    floating = any(isinstance(v, Tensor) and v.is_floating_point() for v in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if whole and not floating else a / b


def _mod(site: Site) -> Function:
    return torch.fmod if site.attrs.get("fmod") else torch.remainder


def _nary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Site], Function]:
    return lambda site: lambda *xs: functools.reduce(function, xs)


def _mean(*xs: Tensor) -> Tensor:
    return functools.reduce(torch.add, xs) / len(xs)


def _cast(site: Site) -> Function:
    dtype = TORCH[site.attrs["to"]]
    return lambda x: x.to(dtype)


def _cast_like(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def _clip(site: Site) -> Function:
    """min(max(x, low), high); bounds are attributes before opset 11."""
    low, high = site.attrs.get("min"), site.attrs.get("max")
    if low is not None or high is not None or site.opset < 11:
        return lambda x: x if low is None and high is None else torch.clamp(x, low, high)
    if low is None and not (site.has(1) or site.has(2)):
        return lambda x, *_: x
    return _clamp


def _clamp(x: Tensor, low: Tensor | float | None = None, high: Tensor | float | None = None) -> Tensor:
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low = torch.as_tensor(low, dtype=x.dtype, device=x.device) if low is not None else None
        high = torch.as_tensor(high, dtype=x.dtype, device=x.device) if high is not None else None
    if low is not None and high is not None and not isinstance(low, Tensor) and low == 0 and high == 6:
        return F.relu6(x)
    return torch.clamp(x, low, high)  # type: ignore[arg-type]


def _leaky_relu(site: Site) -> Function:
    slope = site.attrs.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


def _elu(site: Site) -> Function:
    alpha = site.attrs.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


def _celu(site: Site) -> Function:
    alpha = site.attrs.get("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


def _selu(site: Site) -> Function:
    alpha, gamma = site.attrs.get("alpha", 1.6732632423543772), site.attrs.get("gamma", 1.0507009873554805)
    return lambda x: gamma * F.elu(x, alpha)


def _thresholded_relu(site: Site) -> Function:
    alpha = site.attrs.get("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


def _hard_sigmoid(site: Site) -> Function:
    """max(0, min(1, alpha * x + beta))."""
    alpha, beta = site.attrs.get("alpha", 0.2), site.attrs.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def _gelu(site: Site) -> Function:
    approximate = site.attrs.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def _swish(site: Site) -> Function:
    alpha = site.attrs.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def _shrink(site: Site) -> Function:
    """X + bias below -lambd, x - bias above lambd, else 0."""
    bias, lambd = site.attrs.get("bias", 0.0), site.attrs.get("lambd", 0.5)
    return lambda x: torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


def _is_inf(site: Site) -> Function:
    up, down = site.attrs.get("detect_positive", 1), site.attrs.get("detect_negative", 1)
    return lambda x: (torch.isposinf(x) & bool(up)) | (torch.isneginf(x) & bool(down))


def _dropout(site: Site) -> Function:
    """Drops in training with the ratio that the node gives; the mask is what stayed."""

    def run(
        context: Context, x: Tensor, ratio: float | None = None, training: bool | None = None
    ) -> tuple[Tensor, ...]:
        rate = site.attrs.get("ratio", 0.5) if ratio is None else float(ratio)
        if not (context.training or training) or rate == 0:
            return x, torch.ones_like(x, dtype=torch.bool)
        kept = torch.rand_like(x) >= rate
        return x * kept / (1 - rate), kept

    return run if site.outputs > 1 else lambda *args: run(*args)[0]


_UNARY: dict[str, Function] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
_BINARY: dict[str, Function] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Pow": torch.pow,
    "Equal": lambda a, b: a == b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
}
_LOGICAL: dict[str, Function] = {
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}

OPERATORS = (
    *(Operator(op, plain(function)) for op, function in _UNARY.items()),
    *(Operator(op, plain(function), scalars=True) for op, function in _BINARY.items()),
    *(Operator(op, plain(function)) for op, function in _LOGICAL.items()),
    Operator("Cast", _cast),
    Operator("CastLike", plain(_cast_like)),
    Operator("Celu", _celu),
    Operator("Clip", _clip, scalars=True),
    Operator("Dropout", _dropout, host=(1, 2), context=True, random=True),
    Operator("Elu", _elu),
    Operator("Gelu", _gelu),
    Operator("HardSigmoid", _hard_sigmoid),
    Operator("IsInf", _is_inf),
    Operator("LeakyRelu", _leaky_relu),
    Operator("Max", _nary(torch.maximum)),
    Operator("Mean", plain(_mean)),
    Operator("Min", _nary(torch.minimum)),
    Operator("Mod", _mod, scalars=True),
    Operator("PRelu", plain(_prelu)),
    Operator("Selu", _selu),
    Operator("Shrink", _shrink),
    Operator("Sum", _nary(torch.add)),
    Operator("Swish", _swish),
    Operator("ThresholdedRelu", _thresholded_relu),
    Operator("Where", plain(torch.where)),
)
