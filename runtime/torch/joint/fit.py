"""Gradient steps on the weights of a few layers, towards the values that the original has behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor

from ....passes.errors import OnnxPruneError
from ...session import Device
from ..graph_module import GraphModule
from ..place import torch_device

Array = np.ndarray
_FLOAT = 4  # bytes: of half precision nothing is trained, small steps would be lost
_HELD_OUT = 8  # every so manieth sample
_LEAST_STEPS = 16  # of an epoch, where there are too few samples for as many batches of the usual size
_RISING = 10  # steps at first
_MEASURED = 128  # samples at once


@dataclass(frozen=True, slots=True)
class Steps:
    """How a stretch of layers is fitted by Adam (Kingma, Ba 2015), the rate falling to zero as a cosine.

    layers: of a stretch, at least
    epochs: passes over the samples
    rate: the highest learning rate
    batch: samples a step, fewer where there are few
    fixed: whether every run has to have so many, as the model says
    seed: of the order of the samples
    device: where it is computed
    """

    layers: int
    epochs: int
    rate: float
    batch: int = 32
    fixed: bool = False
    seed: int = 0
    device: Device = "auto"

    def size(self, samples: int) -> int:
        """Samples a step, of so many."""
        return self.batch if self.fixed else max(min(self.batch, samples // _LEAST_STEPS), 1)


class Moving(NamedTuple):
    """A weight that may move: its values, and what they are multiplied by on the way to the activation.

    scale: broadcasts to the values, nowhere 0. Steps are taken in values * scale, so that a network with its
    BatchNormalizations folded takes the same ones.
    """

    values: Array
    scale: Array


def fit_piece(
    model: onnx.ModelProto,
    weights: Mapping[str, Moving],
    inputs: Mapping[str, Array],
    target: Array,
    steps: Steps,
) -> dict[str, Array]:
    """New values of weights of a model with one output, with which it is nearer to the target on held-out samples.

    weights: those that may move, by their ONNX names; inputs: name -> (N, ...), target: (N, ...). None come back where
    nothing is nearer, torch lacks an operator, or what the model gives has another form than the target.
    """
    try:
        module = GraphModule(model).to(torch_device(steps.device))
    except OnnxPruneError:
        return {}
    trained = {
        n: weights[n].scale for n in module.parameter_names if n in weights and weights[n].values.itemsize >= _FLOAT
    }
    if not trained or not _alike(module, inputs, target[: steps.size(len(target))]):
        return {}
    before, after = fit_together(module, trained, inputs, target, steps)
    if not after < before:
        return {}
    values = {name: module.get_parameter(module.parameter_names[name]).detach().cpu().numpy() for name in trained}
    own = {name: weights[name].values for name in trained}
    return {name: value.astype(own[name].dtype).reshape(own[name].shape) for name, value in values.items()}


def _alike(module: GraphModule, inputs: Mapping[str, Array], target: Array) -> bool:
    """Whether the module's output for the first samples has the form of the target, and both are finite floats."""
    if target.dtype.kind != "f" or not np.isfinite(target).all():
        return False
    place = next(module.parameters()).device
    try:
        with torch.no_grad():
            found = module.eval()(*(torch.from_numpy(inputs[n][: len(target)]).to(place) for n in module.input_names))
    except RuntimeError:
        return False  # a size that is written into the graph
    return found[0].shape == target.shape and bool(torch.isfinite(found[0]).all())


def fit_together(
    module: GraphModule, trained: Mapping[str, Array], inputs: Mapping[str, Array], target: Array, steps: Steps
) -> tuple[float, float]:
    """Lower |y - target|^2 / |target|^2 of the module's only output y; the errors on held-out samples before and after.

    trained: ONNX names of the weights that move, and the scale of each (`Moving`); inputs: name -> (N, ...), target:
    (N, ...). What BatchNormalization has stored stays. Where the error on every eighth sample, which no step sees,
    does not fall, the weights are as they were.
    """
    seen, held_out = _parted(len(target), steps)
    data = _Samples([inputs[name] for name in module.input_names], target, next(module.parameters()).device)
    module.eval()
    module.requires_grad_(requires_grad=False)
    moving = [module.get_parameter(module.parameter_names[name]).requires_grad_() for name in trained]
    start = [parameter.detach().clone() for parameter in moving]
    before = data.error(module, held_out, steps)
    scales = [torch.from_numpy(np.asarray(s)).to(p) for p, s in zip(moving, trained.values(), strict=True)]
    _descend(module, _Scaled(moving, scales, steps.rate), data, seen, steps)
    after = data.error(module, held_out, steps)
    if not after < before:
        with torch.no_grad():
            for parameter, value in zip(moving, start, strict=True):
                parameter.copy_(value)
    return before, after


def _parted(samples: int, steps: Steps) -> tuple[Array, Array]:
    """Numbers of the samples that are learned from and of those held out; whole batches where their size is fixed."""
    size = steps.batch if steps.fixed else 1
    number = np.arange(samples - samples % size)
    held_out = number // size % _HELD_OUT == _HELD_OUT - 1
    if not held_out.any():  # fewer than eight
        held_out = number >= len(number) - size
    return number[~held_out], number[held_out]


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """Inputs and targets, by the numbers of the samples, on the device."""

    inputs: Sequence[Array]
    target: Array
    place: torch.device

    def __call__(self, chosen: Array) -> tuple[list[Tensor], Tensor]:
        return [self._placed(array[chosen]) for array in self.inputs], self._placed(self.target[chosen])

    def _placed(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(array).to(self.place)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    def scale(self) -> float:
        """Mean square of the target."""
        return max(float(np.mean([np.square(row, dtype=np.float64).mean() for row in self.target])), 1e-30)

    def error(self, module: GraphModule, chosen: Array, steps: Steps) -> float:
        """|y - target|^2 / |target|^2 over these samples; infinite where it is not finite."""
        far = size = 0.0
        at_once = steps.batch if steps.fixed else _MEASURED
        with torch.no_grad():
            for at in range(0, len(chosen), at_once):
                inputs, target = self(chosen[at : at + at_once])
                far += float((module(*inputs)[0] - target).double().square().sum())
                size += float(target.double().square().sum())
        return far / max(size, 1e-30) if math.isfinite(far) else math.inf


class _Scaled:
    """Adam on parameters times their scales."""

    def __init__(self, moving: list[Tensor], scales: list[Tensor], rate: float) -> None:
        self._moving, self._scales = moving, scales
        self._scaled = [(p.detach() * scale) for p, scale in zip(moving, scales, strict=True)]
        self._adam = torch.optim.Adam(self._scaled, lr=rate)

    def step(self, loss: Tensor, rate: float) -> None:
        """Against the gradient of the loss."""
        self._adam.param_groups[0]["lr"] = rate
        gradients = torch.autograd.grad(loss, self._moving, materialize_grads=True)
        for scaled, scale, gradient in zip(self._scaled, self._scales, gradients, strict=True):
            scaled.grad = gradient / scale
        self._adam.step()
        with torch.no_grad():
            for own, scaled, scale in zip(self._moving, self._scaled, self._scales, strict=True):
                own.copy_(scaled / scale)


def _descend(module: GraphModule, adam: _Scaled, data: _Samples, seen: Array, steps: Steps) -> None:
    size, scale = steps.size(len(seen)), data.scale()
    total = steps.epochs * (len(seen) // size)
    rng = np.random.default_rng(steps.seed)
    done = 0
    for _ in range(steps.epochs):
        order = rng.permutation(seen)
        for at in range(0, len(order) - size + 1, size):
            rate = steps.rate * (1 + math.cos(math.pi * done / total)) / 2 * min(1.0, (done + 1) / _RISING)
            inputs, target = data(order[at : at + size])
            adam.step((module(*inputs)[0] - target).square().mean() / scale, rate)
            done += 1
