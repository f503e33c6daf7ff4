"""Attention as one operator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Function, Operator, Site, refuse


def _attention(site: Site) -> Function:
    """softmax(scale Q K' + mask) V, of (batch, heads, length, size) or (batch, length, heads * size) tensors.

    Several heads of Q may share one of K and V; scale is 1 / sqrt(size) unless given; softcap limits the logits.
    """
    attrs = site.attrs
    if any(site.has(i) for i in range(4, 7)) or any(site.makes(i) for i in range(1, 4)):
        raise refuse(site, "has a cache or several outputs")
    causal, softcap = attrs.get("is_causal", 0), attrs.get("softcap", 0.0)

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        flat = q.dim() == 3
        if flat:
            q = q.unflatten(2, (attrs["q_num_heads"], -1)).transpose(1, 2)
            k, v = (t.unflatten(2, (attrs["kv_num_heads"], -1)).transpose(1, 2) for t in (k, v))
        shared = q.shape[1] // k.shape[1]
        if shared > 1:
            k, v = (t.repeat_interleave(shared, 1) for t in (k, v))
        logits = (q @ k.transpose(2, 3)) * (attrs.get("scale") or 1 / math.sqrt(q.shape[3]))
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        if mask is not None:
            logits = logits + torch.where(mask, 0.0, -torch.inf) if mask.dtype is torch.bool else logits + mask
        if causal:
            logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
        y = torch.softmax(logits, -1) @ v
        return y.transpose(1, 2).flatten(2) if flat else y

    return run


def _multi_head(site: Site) -> Function:
    """softmax(scale Q K' + mask) V of (batch, length, heads * size) tensors, ONNX Runtime's form.

    The biases of Q, K and V are one vector.
    """
    heads, scale = site.attrs["num_heads"], site.attrs.get("scale", 0.0)
    if site.has(4) or any(site.has(i) for i in range(6, 10)) or site.attrs.get("unidirectional") or site.outputs > 1:
        raise refuse(site, "has a padding mask, a cache or an order")

    def run(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, _: None = None, mask: Tensor | None = None
    ) -> Tensor:
        if bias is not None:
            ends = bias.split([q.shape[2], k.shape[2], v.shape[2]])
            q, k, v = q + ends[0], k + ends[1], v + ends[2]
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        logits = (q @ k.mT) * (scale or 1 / math.sqrt(q.shape[3]))
        logits = logits if mask is None else logits + mask
        return (torch.softmax(logits, -1) @ v).transpose(1, 2).flatten(2)

    return run


def _projecting(site: Site) -> Function:
    """`_multi_head` of Q, K and V = x W + b, side by side in one weight (inputs, q + k + v), ONNX Runtime's form."""
    attrs = site.attrs
    if any(site.has(i) for i in (3, 4, 6)) or attrs.get("unidirectional") or attrs.get("do_rotary") or site.makes(1):
        raise refuse(site, "has a padding mask, a cache, rotation or an order")
    heads, scale, sizes = attrs["num_heads"], attrs.get("scale", 0.0), attrs.get("qkv_hidden_sizes")

    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        _: None = None,
        __: None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        y = x @ weight if bias is None else x @ weight + bias
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in y.split(sizes or y.shape[2] // 3, 2))
        logits = (q @ k.mT) * (scale or 1 / math.sqrt(q.shape[3]))
        logits = logits if mask is None else logits + mask
        return (torch.softmax(logits, -1) @ v).transpose(1, 2).flatten(2)

    return run


OPERATORS = (
    Operator("Attention", _attention),
    Operator("MultiHeadAttention", _multi_head, domain="com.microsoft"),
    Operator("Attention", _projecting, domain="com.microsoft"),
)
