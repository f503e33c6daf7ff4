"""Auxiliary classifiers trained together with the network: Zhuang et al., NeurIPS 2018, section 3.2."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..graph_module import refuse_half
from .auxiliary import AuxiliaryHead
from .readout import Readout, as_logits
from .samples import TensorBatch

_PASSES, _RATE, _MOMENTUM = 3, 1e-3, 0.9


def tune_heads(
    readout: Readout, heads: tuple[AuxiliaryHead, ...], data: Iterable[TensorBatch], *, labels: bool
) -> tuple[AuxiliaryHead, ...]:
    """The heads after a few passes of SGD on the sum of all cross-entropies, which trains the network's weights too.

    What is learned are the data's labels where there are any and `labels` says so, else the classes that the model
    finds at first. The readout's module is changed in place; running statistics stay.
    """
    module = readout.module
    refuse_half(module, fix="take ccp-ac without heads=finetuned, or prune the float32 model and convert the result")
    wanted = [_targets(readout, samples, labels=labels) for samples in data]
    weights = [p for p in module.parameters() if p.is_floating_point()]
    own = [(h.weight.clone().requires_grad_(), h.bias.clone().requires_grad_()) for h in heads]
    module.requires_grad_(True)
    optimiser = torch.optim.SGD([*weights, *(v for pair in own for v in pair)], lr=_RATE, momentum=_MOMENTUM)
    for _ in range(_PASSES):
        tuned = [AuxiliaryHead(head.depth, *pair) for head, pair in zip(heads, own, strict=True)]
        for samples, targets in zip(data, wanted, strict=True):
            optimiser.zero_grad()
            _loss(readout, tuned, samples, targets).backward()
            optimiser.step()
    module.requires_grad_(False)
    return tuple(AuxiliaryHead(head.depth, W.detach(), b.detach()) for head, (W, b) in zip(heads, own, strict=True))


def _targets(readout: Readout, samples: TensorBatch, *, labels: bool) -> Tensor:
    if labels and samples.labels is not None:
        return samples.labels
    with torch.no_grad():
        return _logits(readout(samples)[0], len(samples)).argmax(1)


def _loss(readout: Readout, heads: list[AuxiliaryHead], samples: TensorBatch, targets: Tensor) -> Tensor:
    outputs, seen = readout(samples, watch=[head.depth.tensor for head in heads])
    rows = [_logits(outputs, len(samples)), *(h.logits(seen[h.depth.tensor], len(samples)) for h in heads)]
    return torch.stack([F.cross_entropy(logits.float(), targets) for logits in rows]).sum()


def _logits(outputs: list[Tensor], samples: int) -> Tensor:
    """Of the first output that classifies; `fit_heads` has refused models without one."""
    return next(rows for value in outputs if (rows := as_logits(value, samples)) is not None)
