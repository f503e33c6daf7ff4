"""The loss of a step against the formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.torch.training.losses import Labels, make_step_loss, relative_error
from onnx_prune.runtime.torch.training.recipe import Recipe
from scipy.special import log_softmax, softmax

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (RNG.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
MAPS, WANTED = (RNG.normal(size=(5, 2, 3)).astype(np.float32) for _ in range(2))
CLASSES = np.array([0, 3, 1, 1, 2])
OTHERS = np.array([2, 2, 0, 3, 1])


def cross_entropy(classes):
    return -log_softmax(STUDENT.astype(np.float64), 1)[np.arange(5), classes].sum()


def distillation(heat):
    p, q = softmax(TEACHER.astype(np.float64) / heat, 1), log_softmax(STUDENT.astype(np.float64) / heat, 1)
    return heat**2 * (p * (np.log(p) - q)).sum()


def loss(recipe, student, teacher, labels, classes=4):
    """What the objective gives for arrays."""
    student = [torch.from_numpy(a) for a in student]
    teacher = None if teacher is None else [torch.from_numpy(a) for a in teacher]
    objective = make_step_loss(
        recipe, student, 5, taught=teacher is not None, classes=None if labels is None else classes
    )
    return float(objective(student, teacher, labels))


def test_teacher_and_labels_have_their_shares():
    recipe = Recipe(labels=0.3, temperature=2.0)
    expected = 0.7 * distillation(2.0) + 0.3 * cross_entropy(CLASSES)
    assert loss(recipe, [STUDENT], [TEACHER], Labels(torch.from_numpy(CLASSES))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_mixed_images_have_two_classes(share):
    labels = Labels(torch.from_numpy(CLASSES), torch.from_numpy(OTHERS), share)
    expected = share * cross_entropy(CLASSES) + (1 - share) * cross_entropy(OTHERS)
    assert loss(Recipe(), [STUDENT], None, labels) == pytest.approx(expected, rel=1e-5)


def test_one_term_alone_has_its_full_weight():
    recipe = Recipe(labels=0.3, temperature=4.0)
    labels = Labels(torch.from_numpy(CLASSES))
    assert loss(recipe, [STUDENT], None, labels) == pytest.approx(cross_entropy(CLASSES), rel=1e-5)
    assert loss(recipe, [STUDENT], [TEACHER], None) == pytest.approx(distillation(4.0), rel=1e-5)


def test_probabilities_are_compared_as_their_logits():
    """A softmax in the model changes nothing: softmax(log p / T) is softmax(logits / T)."""
    made, wanted = (softmax(a, 1) for a in (STUDENT, TEACHER))
    recipe = Recipe(temperature=2.0)
    assert loss(recipe, [made], [wanted], None) == pytest.approx(distillation(2.0), rel=1e-4)


def test_outputs_that_are_no_classes_count_by_their_relative_error():
    expected = (((MAPS - WANTED) ** 2).sum((1, 2)) / (WANTED**2).sum((1, 2))).sum()
    assert loss(Recipe(), [MAPS], [WANTED], None) == pytest.approx(expected, rel=1e-5)
    both = loss(Recipe(temperature=2.0), [STUDENT, MAPS], [TEACHER, WANTED], None)
    assert both == pytest.approx((distillation(2.0) + expected) / 2, rel=1e-5)
    assert float(relative_error(torch.zeros(3), torch.zeros(3))) == 0


def test_labels_beyond_the_classes_are_refused_and_so_is_nothing_to_learn_from():
    labels = Labels(torch.from_numpy(CLASSES))
    with pytest.raises(UsageError, match="a label is 4, and the model has 4 classes"):
        loss(Recipe(), [STUDENT], None, labels, classes=5)
    with pytest.raises(UsageError, match="nothing to learn from"):
        loss(Recipe(), [MAPS], None, labels)
