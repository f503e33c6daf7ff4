"""What the student is asked to do: to say what the teacher says, and what the labels say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ....passes.errors import UsageError
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Labels:
    """Classes of a batch of n samples.

    own: int64 (n,)
    other: with mixup, those of the images that are mixed in
    share: what a sample's own class counts; the other's counts 1 - share
    """

    own: Tensor
    other: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class StepLoss:
    """The loss of a step, and how right the student is.

    recipe: what counts how much
    classifies: for each output, whether it is (samples, classes)
    probabilities: for each output, whether its rows sum to one already
    taught: whether there is a teacher
    labelled: whether there are labels
    """

    recipe: Recipe
    classifies: tuple[bool, ...]
    probabilities: tuple[bool, ...]
    taught: bool
    labelled: bool

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor] | None, labels: Labels | None) -> Tensor:
        """Sum up over the samples what is to become small.

            (1 - labels) * mean over outputs of T^2 KL(softmax(teacher / T) || softmax(student / T))
            + labels * cross-entropy(first classifying output, labels)

        Without labels or without a teacher the other term alone, with its full weight. Outputs that do not classify
        count |student - teacher|^2 / |teacher|^2 a sample. Source: Hinton et al. 2015, section 2.
        """
        weight = self.recipe.labels if self.taught and self.labelled else 1.0 if self.labelled else 0.0
        total = student[0].new_zeros((), dtype=torch.float32)
        if teacher is not None and weight < 1:
            parts = [self._distance(i, s, t) for i, (s, t) in enumerate(zip(student, teacher, strict=True))]
            total = total + (1 - weight) * torch.stack(parts).mean()
        if labels is not None and weight > 0:
            total = total + weight * self._cross_entropy(self.scores(student), labels)
        return total

    def _distance(self, output: int, student: Tensor, teacher: Tensor) -> Tensor:
        if not self.classifies[output]:
            return relative_error(student, teacher)
        heat = self.recipe.temperature
        wanted = F.log_softmax(self._logits(output, teacher) / heat, 1)
        said = F.log_softmax(self._logits(output, student) / heat, 1)
        return heat * heat * F.kl_div(said, wanted, log_target=True, reduction="sum")

    def _logits(self, output: int, values: Tensor) -> Tensor:
        values = values.float()
        return values.clamp_min(torch.finfo(torch.float32).tiny).log() if self.probabilities[output] else values

    def scores(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits (n, classes) of the first output that classifies."""
        first = self.classifies.index(True)
        return self._logits(first, outputs[first])

    @staticmethod
    def _cross_entropy(scores: Tensor, labels: Labels) -> Tensor:
        own = F.cross_entropy(scores, labels.own, reduction="sum")
        if labels.other is None:
            return own
        return labels.share * own + (1 - labels.share) * F.cross_entropy(scores, labels.other, reduction="sum")


def make_step_loss(
    recipe: Recipe, example: Sequence[Tensor], samples: int, *, taught: bool, classes: int | None
) -> StepLoss:
    """Look at the outputs for a batch of `samples`; classes: the largest label + 1, None where there are no labels.

    Raises UsageError where there is nothing to learn from, no output has a gradient, or labels have no class in any.
    """
    if not any(output.is_floating_point() for output in example):
        raise UsageError(
            "all outputs are indices or truth values, from which no gradient comes",
            where="the model's outputs",
            fix="give a model that ends in front of them, with the scores that they are taken of",
        )
    classifies = tuple(_classifies(output, samples) for output in example)
    probabilities = tuple(bool(c and _is_distribution(o.float())) for c, o in zip(classifies, example, strict=True))
    labelled = classes is not None and any(classifies)
    if not taught and not labelled:
        raise UsageError(
            "there is nothing to learn from: no teacher, and no labels for an output of the form (samples, classes)",
            where="--train",
            fix="give --teacher, the model before pruning",
        )
    if labelled and classes is not None:
        offered = example[classifies.index(True)].shape[1]
        if classes > offered:
            raise UsageError(
                f"a label is {classes - 1}, and the model has {offered} classes",
                where="the labels of the training data",
                fix="give labels from 0, in the order of the model's outputs",
            )
    return StepLoss(recipe, classifies, probabilities, taught, labelled)


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """The sum over the samples (first axis) of |student - teacher|^2 / |teacher|^2."""
    student, teacher = (
        v.float().reshape(len(v), -1) if v.dim() else v.float().reshape(1, 1) for v in (student, teacher)
    )
    scale = teacher.square().sum(1)
    return ((student - teacher).square().sum(1) / scale.clamp_min(1e-12)).sum()


def _classifies(output: Tensor, samples: int) -> bool:
    """Whether it is of the form (samples, classes)."""
    return output.is_floating_point() and output.dim() == 2 and len(output) == samples and output.shape[1] > 1


def _is_distribution(rows: Tensor) -> bool:
    return bool((rows >= 0).all() and ((rows.sum(1) - 1).abs() < 1e-3).all())
