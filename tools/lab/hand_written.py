"""A residual network trained by hand-written torch: the measure of what fine-tuning on a graph may cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.data.inputs import model_inputs
from ...runtime.torch.graph_module import GraphModule
from ...runtime.torch.training.data import training_data
from ...runtime.torch.training.distributed import Processes
from ...runtime.torch.training.loop import Pair, Training
from ...runtime.torch.training.recipe import Recipe

_CLASSES = 10


class _Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut), the shortcut every other pixel with zeros around (option A)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.added:
            half = self.added // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        return F.relu(y + x)


class ResNet(nn.Module):
    """ResNet of 6n + 2 layers for CIFAR, the twin of `models.resnet.resnet_cifar`."""

    def __init__(self, depth: int) -> None:
        """`depth` is 20, 32, 44, 56 or 110."""
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        blocks = [
            _Block(before if first else width, width, stride if first else 1)
            for before, width, stride in widths
            for first in [True] + [False] * ((depth - 2) // 6 - 1)
        ]
        self.blocks, self.linear = nn.Sequential(*blocks), nn.Linear(64, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to logits (N, 10)."""
        return self.linear(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


def epochs_to_compare(model: onnx.ModelProto, depth: int, recipe: Recipe, steps: int) -> dict[str, Callable[[], None]]:
    """An epoch of `steps` steps by hand, and one on the graph `model`, which is the same network: student and teacher.

    Both take the same random images with the same augmentation, loss and precision.
    """
    rng = np.random.default_rng(recipe.seed)
    count = steps * recipe.batch
    images = rng.standard_normal((count, 3, 32, 32), np.float32)
    labels = rng.integers(0, _CLASSES, count)
    training = _ours(model, recipe, images, labels)

    def on_the_graph() -> None:
        training.step = 0
        training.run_epoch(lambda: False, lambda _: None)

    by_hand = _ByHand(depth, recipe, training.half, torch.from_numpy(images), torch.from_numpy(labels))
    return {"by hand": by_hand, "on the graph": on_the_graph}


def _ours(model: onnx.ModelProto, recipe: Recipe, images: np.ndarray, labels: np.ndarray) -> Training:
    inputs, place = model_inputs(model), torch.device("cpu")
    data = training_data({inputs[0].name: images, "label": labels}, inputs, None, recipe, place)
    pair = Pair(GraphModule(model), GraphModule(model).eval())
    return Training(pair, data, None, recipe, Processes())


class _ByHand:
    """One epoch: shuffle, crop and flip, distil, step."""

    def __init__(self, depth: int, recipe: Recipe, half: bool, images: Tensor, labels: Tensor) -> None:
        self.student, self.teacher = ResNet(depth), ResNet(depth).eval()
        self.recipe, self.half, self.images, self.labels = recipe, half, images, labels
        self.optimiser = torch.optim.SGD(
            self.student.parameters(),
            recipe.rate or 0.0,
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.decay,
        )

    def __call__(self) -> None:
        self.student.train()
        for at in torch.randperm(len(self.images)).split(self.recipe.batch):
            x = _cropped(self.images[at]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                with torch.no_grad():
                    wanted = self.teacher(x)
                said = self.student(x)
            heat, weight = self.recipe.temperature, self.recipe.labels
            soft = F.kl_div(
                F.log_softmax(said.float() / heat, 1),
                F.log_softmax(wanted.float() / heat, 1),
                log_target=True,
                reduction="batchmean",
            )
            loss = (1 - weight) * heat * heat * soft + weight * F.cross_entropy(said.float(), self.labels[at])
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.clip)
            self.optimiser.step()


def _cropped(images: Tensor) -> Tensor:
    padded = F.pad(images, (4, 4, 4, 4))
    out = torch.empty_like(images)
    for i, (row, column, flip) in enumerate(torch.randint(0, 9, (len(images), 3)).tolist()):
        part = padded[i, :, row : row + 32, column : column + 32]
        out[i] = part.flip(-1) if flip % 2 else part
    return out
