"""Distillation of a refitted network on the samples that it was refitted on: the outputs of the original are learned.

A layer's refit sees its own error alone; here every weight follows the gradient of the distance of the network's
outputs. So few samples are soon known by heart: each is moved, mirrored and mixed with another in every epoch (the
teacher says what the mixture is), weights are averaged, and what is kept is the epoch that is nearest to the original
on samples that nothing was fitted to; the network as it came where none is nearer. Running statistics of
BatchNormalization stay. Sources: Hinton et al. 2015; mixed images as a teacher's questions: Beyer et al. 2022.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import onnx
import torch

from ....passes.errors import ProofError
from ....passes.graph.same import same_node
from ...data.batches import Data
from ...data.inputs import model_inputs
from ...data.sources import Batch
from ...data.synthetic import reads_images
from ...device import Device
from ...progress import Stage, silent
from ..graph_module import GraphModule
from ..place import torch_device
from .data import TrainingData, training_data
from .distributed import Processes
from .finetune import trainable, written
from .loop import Pair, Training
from .recipe import Recipe
from .run import FineTuned

# Tried on ResNet-20 at 30 % of the MACs: docs/results.md.
RECIPE = Recipe(
    epochs=24,
    batch=128,
    rate=2e-4,
    optimiser="adam",
    decay=0.0,
    temperature=10.0,  # so hot that it is nearly the squared difference of logits
    labels=0.0,
    average=0.98,
    precision="float32",
    batch_norm=False,
)
_PHOTOGRAPHS, _OTHERS = ("crop", "flip", "mixup"), ("mixup",)  # in colour; where a mirrored one may be another thing
_STEPS = 16  # of an epoch, where there are too few samples for as many batches of the recipe's size


def check_distillable(model: onnx.ModelProto) -> None:
    """Raise UsageError where torch cannot compute the model, or there are no weights that could be trained."""
    trainable(GraphModule(model))


def distill(
    model: onnx.ModelProto,
    teacher: onnx.ModelProto,
    data: Data,
    held_out: Data,
    recipe: Recipe = RECIPE,
    *,
    device: Device = "auto",
    progress: Stage = silent,
) -> FineTuned:
    """The same graph with weights whose outputs are nearer to the teacher's.

    data: what is learned on, all of it held in memory; held_out: what decides which epoch stays. Labels of neither are
    looked at. Scores of epochs are minus the loss on `held_out`, that of the model as it came first.
    Raises UsageError where the model cannot be trained, AccuracyError where the training diverges.
    """
    begun = time.perf_counter()
    place = torch_device(device)
    recipe = _fitting(recipe, model, data)
    student = trainable(GraphModule(model).to(place))
    student.frozen_statistics = True
    pair = Pair(student, GraphModule(teacher).to(place).eval())
    training = _Distillation(
        pair, _opened(data, model, recipe, place), _opened(held_out, model, recipe, place), recipe, Processes()
    )
    training.score_start()
    while training.epoch < training.rounds:
        training.run_epoch(lambda: False, progress)
        training.finish_epoch(choose=True)
    found = written(training, training.processes, time.perf_counter() - begun)
    _check_same_nodes(model, found.model)
    return found


class _Distillation(Training):
    """Epochs are told apart by the loss on held-out samples: so few have the same class too often."""

    doing = "distilling"

    def measure(self) -> float | None:
        loss, _, samples = self.measured()
        return -loss / samples


def _check_same_nodes(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Raise ProofError where more than values changed."""
    pairs = zip(before.graph.node, after.graph.node, strict=False)
    same = len(before.graph.node) == len(after.graph.node) and all(same_node(a, b) for a, b in pairs)
    if not same:
        raise ProofError(
            "the distilled model has other nodes than the model that was proved",
            where=before.graph.name,
            fix="nothing was written; this is a bug of onnx-prune: please report it with the graph",
        )


def _fitting(recipe: Recipe, model: onnx.ModelProto, data: Data) -> Recipe:
    """The recipe for so many samples of such a model."""
    inputs = model_inputs(model)
    example = data.example()
    images = reads_images(inputs, example)
    colour = images and 3 in example[inputs[0].name].shape[1:]
    batch = inputs[0].batch or max(min(recipe.batch, (data.samples or recipe.batch * _STEPS) // _STEPS), 1)
    chosen = recipe.augment if recipe.augment is not None else _PHOTOGRAPHS if colour else _OTHERS
    return replace(recipe, batch=batch, augment=chosen if images else ())


def _opened(data: Data, model: onnx.ModelProto, recipe: Recipe, place: torch.device) -> TrainingData:
    def unlabelled() -> Iterator[Batch]:
        return (Batch(batch.feeds, None) for batch in data)

    return training_data(unlabelled, model_inputs(model), None, recipe, place)
