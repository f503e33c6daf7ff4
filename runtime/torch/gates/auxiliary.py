"""Auxiliary classifiers: a linear softmax on pooled features at intermediate depths, whose loss joins the network's.

Gradients of the final loss alone say little of shallow layers (Peng et al., ICML 2019, after Zhuang et al., NeurIPS
2018): a head of its own behind a third of the blocks says what they do for the classes. The heads are fitted, not
trained along: the network stays as it is.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from torch import Tensor
from torch.nn import functional as F

from ....passes.channels.blocks import residual_blocks
from ....passes.channels.labels import LabelledGraph
from ....passes.errors import UsageError
from .readout import Readout, as_logits, check_labels
from .samples import TensorBatch

Array = np.ndarray
_DECAY = 1e-3  # of the weights of standardised features: some, since on separable data there is no least loss
_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Depth:
    """A tensor on the way, and its channel axis."""

    tensor: str
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class AuxiliaryHead:
    """softmax(weight f + bias) on the features f of a depth; weight: (classes, C), bias: (classes,), float32."""

    depth: Depth
    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor, samples: int) -> Tensor:
        """(samples, classes) of the tensor at that depth."""
        return F.linear(features(x, self.depth, samples), self.weight, self.bias)


def features(x: Tensor, depth: Depth, samples: int) -> Tensor:
    """(samples, C) float32: the mean over positions of what a ReLU leaves."""
    rectified = torch.relu(x.float())
    batch = (0,) if samples > 1 else ()
    dims = [d for d in range(x.dim()) if d not in (*batch, depth.axis)]
    return (rectified.mean(dims) if dims else rectified).reshape(samples, -1)  # of no dims torch means all


def depths(labelled: LabelledGraph, count: int) -> tuple[Depth, ...]:
    """`count` of the tensors that layers read, evenly over the depth: behind residual sums where there are enough.

    Raises UsageError where the network has fewer.
    """
    nodes = labelled.graph.gs.nodes
    read = {c.data: None for c in sorted(labelled.consumers, key=lambda c: c.node)}
    sums = [_next_read(nodes[block.sum].outputs[0], read) for block in residual_blocks(labelled)]
    for names in (sums, read):
        readable = list(dict.fromkeys(d for d in (_depth(labelled, name) for name in names) if d is not None))
        if len(readable) > count:
            return tuple(readable[-(-len(readable) * i // (count + 1)) - 1] for i in range(1, count + 1))
    raise UsageError(
        f"the network has no {count} depths for auxiliary classifiers", where="--criterion", fix="take ccp"
    )


def _next_read(tensor: gs.Tensor, read: Container[str]) -> str:
    """The tensor, or what is made of it (an activation, a normalisation) before a layer reads it; "" for none."""
    while tensor.name not in read:
        if not tensor.outputs or not tensor.outputs[0].outputs:
            return ""
        tensor = tensor.outputs[0].outputs[0]
    return tensor.name


def _depth(labelled: LabelledGraph, name: str) -> Depth | None:
    axes = labelled.axes.get(name, ())
    return next((Depth(name, a) for a, labels in enumerate(axes) if a > 0 and (labels >= 0).any()), None)


def fit_heads(
    readout: Readout, where: tuple[Depth, ...], data: Iterable[TensorBatch], *, labels: bool
) -> tuple[AuxiliaryHead, ...]:
    """A head at each depth, fitted to the data's labels where there are any, else to the class that the model finds.

    labels: whether those of the data are used. Raises UsageError where the model is no classifier.
    """
    inputs: list[list[Array]] = [[] for _ in where]
    targets: list[Array] = []
    classes, device = 0, torch.device("cpu")
    for samples in data:
        with torch.no_grad():
            outputs, seen = readout(samples, watch=[depth.tensor for depth in where])
        logits = next((rows for v in outputs if (rows := as_logits(v, len(samples))) is not None), None)
        if logits is None:
            raise UsageError(
                "auxiliary classifiers need a classifier: no output has the form (samples, classes)",
                where="--criterion",
                fix="take ccp",
            )
        classes, device = logits.shape[1], logits.device
        for rows, depth in zip(inputs, where, strict=True):
            rows.append(features(seen[depth.tensor], depth, len(samples)).cpu().numpy())
        if labels and samples.labels is not None:
            check_labels(samples.labels, logits)
        used = samples.labels if labels and samples.labels is not None else logits.argmax(1)
        targets.append(used.cpu().numpy())
    y = np.concatenate(targets) if targets else np.zeros(0, np.int64)
    fitted = [softmax_regression(np.concatenate(rows), y, classes) for rows in inputs if rows]
    return tuple(
        AuxiliaryHead(depth, torch.from_numpy(W).float().to(device), torch.from_numpy(b).float().to(device))
        for depth, (W, b) in zip(where, fitted, strict=False)
    )


def softmax_regression(X: Array, y: Array, classes: int) -> tuple[Array, Array]:
    """W (classes, C) and b (classes,) of least mean cross-entropy of softmax(W x + b), with a small decay.

    X: (samples, C); y: (samples,) classes. float64; L-BFGS from zero, on standardised features.
    """
    mean, deviation = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1)
    Z = np.concatenate([(X - mean) / scale, np.ones((len(X), 1))], axis=1)
    wanted = np.arange(classes) == y[:, None]
    decay = np.full(Z.shape[1], _DECAY)
    decay[-1] = 0

    def loss(flat: Array) -> tuple[float, Array]:
        V = flat.reshape(classes, -1)
        rows = Z @ V.T
        value = (logsumexp(rows, axis=1) - rows[wanted]).mean() + (decay * V**2).sum() / 2
        gradient = (softmax(rows, axis=1) - wanted).T @ Z / len(Z) + decay * V
        return float(value), gradient.ravel()

    fit = minimize(loss, np.zeros(classes * Z.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS})
    V = fit.x.reshape(classes, -1)
    W = V[:, :-1] / scale
    return W, V[:, -1] - W @ mean
