"""What ONNX Runtime's optimiser fuses and saves: an operator of ONNX with its activation, addend or factor."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Function, Operator, Site, plain, refuse
from .contraction import gemm
from .convolution import conv

MICROSOFT = "com.microsoft"
_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "LeakyRelu": F.leaky_relu,
    "Clip": torch.clamp,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0, 1),
}


def _activation(site: Site, parameters: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    name = site.attrs.get("activation", "")
    if not name:
        return lambda x: x
    if name not in _ACTIVATIONS:
        raise refuse(site, f"has the activation {name}")
    function = _ACTIVATIONS[name]
    return lambda x: function(x, *parameters)


def _conv(site: Site) -> Function:
    """activation(convolution + addend)."""
    convolution, activation = conv(site), _activation(site, tuple(site.attrs.get("activation_params", ())))

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, addend: Tensor | None = None) -> Tensor:
        y = convolution(x, weight, bias)
        return activation(y if addend is None else y + addend)

    return run


def _gemm(site: Site) -> Function:
    given = tuple(site.attrs[name] for name in ("activation_alpha", "activation_beta") if name in site.attrs)
    product, activation = gemm(site), _activation(site, given)
    return lambda *args: activation(product(*args))


def _matmul(site: Site) -> Function:
    """Alpha * A' B', where ' may transpose the last two axes."""
    attrs = site.attrs
    if attrs.get("transBatchA", 0) or attrs.get("transBatchB", 0):
        raise refuse(site, "has transposed batches")
    alpha, turn_a, turn_b = attrs.get("alpha", 1.0), attrs.get("transA", 0), attrs.get("transB", 0)

    def run(a: Tensor, b: Tensor) -> Tensor:
        y = (a.mT if turn_a else a) @ (b.mT if turn_b else b)
        return y if alpha == 1 else alpha * y

    return run


def _fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def _bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


def _quick_gelu(site: Site) -> Function:
    alpha = site.attrs.get("alpha", 1.702)
    return lambda x: x * torch.sigmoid(alpha * x)


def _skip_layer_norm(site: Site) -> Function:
    """Layer normalisation of x + skip + bias; the outputs are that, mean, reciprocal deviation, and the sum."""
    epsilon = site.attrs.get("epsilon", 1e-12)

    def run(x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None) -> tuple:
        total = x + skip if bias is None else x + skip + bias
        y = F.layer_norm(total, scale.shape, scale, shift, epsilon)
        deviation = torch.rsqrt(total.var(-1, False, keepdim=True) + epsilon)
        return y, total.mean(-1, keepdim=True), deviation, total

    return run if site.outputs > 1 else lambda *args: run(*args)[0]


def _skip_rms_norm(site: Site) -> Function:
    """Division by the root of the mean square of x + skip + bias; the fourth output is the sum."""
    epsilon = site.attrs.get("epsilon", 1e-12)

    def run(x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple:
        total = x + skip if bias is None else x + skip + bias
        factor = torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon)
        return total * factor * scale, None, factor, total

    return run if site.outputs > 1 else lambda *args: run(*args)[0]


OPERATORS = (
    Operator("BiasGelu", plain(_bias_gelu), domain=MICROSOFT),
    Operator("FastGelu", plain(_fast_gelu), domain=MICROSOFT),
    Operator("FusedConv", _conv, domain=MICROSOFT),
    Operator("FusedGemm", _gemm, domain=MICROSOFT),
    Operator("FusedMatMul", _matmul, domain=MICROSOFT),
    Operator("Gelu", plain(F.gelu), domain=MICROSOFT),
    Operator("QuickGelu", _quick_gelu, domain=MICROSOFT),
    Operator("SkipLayerNormalization", _skip_layer_norm, domain=MICROSOFT),
    Operator("SkipSimplifiedLayerNormalization", _skip_rms_norm, domain=MICROSOFT),
)
