"""Normalisation over the batch, over channels, over the last axes; softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Context, Function, Operator, Site


def _batch_norm(site: Site) -> Function:
    """(x - mean) / sqrt(var + epsilon) * scale + bias.

    ONNX keeps `momentum` of the running statistics, torch takes it of the new ones. The running variance is that of
    torch, with n - 1; ONNX's is with n. A node in training mode takes the batch's statistics in
    every run, and gives the new running ones as outputs.
    """
    epsilon = site.attrs.get("epsilon", 1e-5)
    momentum = 1 - site.attrs.get("momentum", 0.9)
    always = bool(site.attrs.get("training_mode", 0))

    def run(context: Context, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        if always:
            mean, var = mean.clone(), var.clone()
        batch = always or context.batch_statistics
        return context.batch_norm(x, mean, var, scale, bias, batch, momentum, epsilon)

    def with_statistics(context: Context, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> tuple:
        axes = [a for a in range(x.dim()) if a != 1]
        new = [momentum * s + (1 - momentum) * old for s, old in ((x.mean(axes), mean), (x.var(axes, False), var))]
        return run(context, x, scale, bias, mean, var), *new

    if site.outputs == 1:
        return run
    if always:
        return with_statistics
    return lambda context, x, scale, bias, mean, var: (run(context, x, scale, bias, mean, var), mean, var)


def _instance_norm(site: Site) -> Function:
    epsilon = site.attrs.get("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, None, None, scale, bias, True, 0.0, epsilon)


def _layer_norm(site: Site) -> Function:
    """Over the axes from `axis` on; mean and reciprocal deviation as further outputs."""
    axis, epsilon = site.attrs.get("axis", -1), site.attrs.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, epsilon)
        y = F.layer_norm(x, shape, None, None, epsilon) * scale
        return y if bias is None else y + bias

    def with_statistics(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        axes = list(range(axis % x.dim(), x.dim()))
        mean = x.mean(axes, keepdim=True)
        return run(x, scale, bias), mean, torch.rsqrt(x.var(axes, False, keepdim=True) + epsilon)

    return run if site.outputs == 1 else with_statistics


def _rms_norm(site: Site) -> Function:
    axis, epsilon = site.attrs.get("axis", -1), site.attrs.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = list(range(axis % x.dim(), x.dim()))
        return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale

    return run


def _group_norm(site: Site) -> Function:
    """Scale and bias are one a group before opset 21, one a channel since."""
    groups, epsilon = site.attrs["num_groups"], site.attrs.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if scale.numel() != x.shape[1]:
            scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
        return F.group_norm(x, groups, scale, bias, epsilon)

    return run


def _lrn(site: Site) -> Function:
    """X / (bias + alpha / size * sum of squares of the `size` channels around) ** beta."""
    attrs = site.attrs
    size, alpha = attrs["size"], attrs.get("alpha", 1e-4)
    beta, bias = attrs.get("beta", 0.75), attrs.get("bias", 1.0)

    def run(x: Tensor) -> Tensor:
        squares = x.square().movedim(1, -1)
        windows = F.pad(squares, ((size - 1) // 2, size // 2)).unfold(-1, size, 1)
        return x / (bias + alpha / size * windows.sum(-1).movedim(-1, 1)) ** beta

    return run


def _softmax(function: Function) -> Callable[[Site], Function]:
    """Over `axis`; before opset 13 over all axes from `axis` on."""

    def build(site: Site) -> Function:
        if site.opset >= 13:
            axis = site.attrs.get("axis", -1)
            return lambda x: function(x, axis)
        first = site.attrs.get("axis", 1)
        return lambda x: function(x.flatten(first), -1).view(x.shape) if x.dim() else function(x, 0)

    return build


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _lp_norm(site: Site) -> Function:
    axis, p = site.attrs.get("axis", -1), site.attrs.get("p", 2)
    return lambda x: x / torch.linalg.vector_norm(x, p, axis, keepdim=True)


def _mean_variance(site: Site) -> Function:
    axes = list(site.attrs.get("axes", (0, 2, 3)))

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run


OPERATORS = (
    Operator("BatchNormalization", _batch_norm, context=True),
    Operator("GroupNormalization", _group_norm),
    Operator("Hardmax", _softmax(_hardmax)),
    Operator("InstanceNormalization", _instance_norm),
    Operator("LRN", _lrn),
    Operator("LayerNormalization", _layer_norm),
    Operator("LogSoftmax", _softmax(F.log_softmax)),
    Operator("LpNormalization", _lp_norm),
    Operator("MeanVarianceNormalization", _mean_variance),
    Operator("RMSNormalization", _rms_norm),
    Operator("SimplifiedLayerNormalization", _rms_norm),
    Operator("Softmax", _softmax(F.softmax)),
)
