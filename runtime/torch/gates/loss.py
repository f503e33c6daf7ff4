"""The loss whose gradients rank units: of the labels where there are any, else the distance from the model itself.

Without labels the loss is that of what pruning is to preserve: KL(model || pruned model) for classifiers, else the
relative squared error of the outputs. Its gradient at the model itself is exactly zero, so what is left is curvature:
the Gauss-Newton matrix J^T B B^T J, J the derivative of the outputs, B B^T the loss's own curvature in them:

    B = diag(sqrt p) - p sqrt(p)^T for KL: B B^T = diag p - p p^T, and J^T B B^T J is the Fisher matrix
    B = I / sqrt(mean_n |y_n|^2)   for the relative squared error

U_n = J_n^T B e with signs e drawn for each sample has the mean E[U_n U_n^T] = J_n^T B B^T J_n: one backward pass, as
with labels drawn from p, but without the rare draw that decides all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ....passes.errors import UsageError
from .auxiliary import AuxiliaryHead
from .readout import Edits, Readout, as_logits, check_labels
from .samples import TensorBatch


@dataclass(frozen=True, slots=True)
class Signs:
    """Numbers that are 1 or -1, drawn one after another from a seed."""

    seed: int = 0
    _generator: torch.Generator = field(default_factory=torch.Generator, repr=False)

    def __post_init__(self) -> None:
        self._generator.manual_seed(self.seed)

    def like(self, value: Tensor) -> Tensor:
        return (torch.randint(0, 2, value.shape, generator=self._generator) * 2 - 1).to(value)


@dataclass(frozen=True, slots=True, eq=False)
class GateLoss:
    """Losses of batches, each `sum_n loss_n`, so that its gradient by sample n's gates is that of loss_n.

    The network's own comes first, then one for each head. They stay apart: the curvature of their sum is the sum of
    their curvatures, which has no products of different losses.

    readout: which output is compared, and how
    heads: auxiliary classifiers
    labels: whether the data's labels are used
    signs: draws, for samples without labels
    """

    readout: Readout
    heads: Sequence[AuxiliaryHead] = ()
    labels: bool = True
    signs: Signs = field(default_factory=Signs)

    def __call__(self, samples: TensorBatch, edits: Edits) -> tuple[Tensor, ...]:
        """The losses of the model with these edits. Raises UsageError where no output can be differentiated."""
        count = len(samples)
        outputs, seen = self.readout(samples, edits, [head.depth.tensor for head in self.heads])
        outputs = [value for value in outputs if value.requires_grad]
        if not outputs:
            raise UsageError(
                "no output of the model can be differentiated",
                where="--criterion",
                fix="take obs, or another criterion without gradients",
            )
        classifiers = [rows for value in outputs if (rows := as_logits(value, count)) is not None]
        extra = [head.logits(seen[head.depth.tensor], count) for head in self.heads]
        if self.labels and samples.labels is not None and classifiers:
            check_labels(samples.labels, classifiers[0])
            return tuple(F.cross_entropy(v, samples.labels, reduction="sum") for v in [classifiers[0], *extra])
        helped = tuple(divergence_root(rows, self.signs) for rows in extra)
        if len(classifiers) == len(outputs):
            return _sum([divergence_root(rows, self.signs) for rows in classifiers]), *helped
        return _sum([squares_root(value, count, self.signs) for value in outputs]), *helped


def divergence_root(logits: Tensor, signs: Signs) -> Tensor:
    """<B e, logits>, whose gradient is B e: a root of the curvature of KL; logits: (samples, classes)."""
    p = torch.softmax(logits.detach(), dim=1)
    drawn = p.sqrt() * signs.like(p)
    return ((drawn - p * drawn.sum(1, keepdim=True)) * logits).sum()


def squares_root(value: Tensor, samples: int, signs: Signs) -> Tensor:
    """<e, y> / sqrt(mean_n |y_n|^2): a root of the curvature of the relative squared error."""
    energy = value.detach().square().sum() / samples
    return (signs.like(value) * value).sum() / energy.clamp_min(torch.finfo(value.dtype).tiny).sqrt()


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()
