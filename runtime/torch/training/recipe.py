"""How a network is trained: everything that the user may say about it, as one value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ....passes.errors import UsageError
from .augment import WORDS

Precision = Literal["auto", "float32", "bfloat16"]
RateSchedule = Literal["cosine", "constant", "steps"]
Optimiser = Literal["sgd", "adam"]
_RATES: Mapping[str, float] = {"sgd": 0.004, "adam": 3e-4}
_AVERAGE = 0.998  # decay of the weights' average: that of about 500 steps


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is learned by which steps; the rate rises for the first of them, then goes its way.

    epochs: passes over the training data
    updates: so many steps in the place of epochs, 0 for epochs
    batch: samples a step, over all processes
    rate: the highest learning rate; where neither it nor the optimiser is said, the start is gentle (`settled`)
    warmup: share of the steps in which it rises
    schedule_rate: what it does then: "cosine" to zero, "constant", or "steps"
    milestones: epochs after which it is multiplied by gamma, with "steps"
    gamma: that factor
    optimiser: "sgd", with Nesterov's momentum, or "adam", whose steps do not depend on how large a weight's gradient is
    momentum: of the optimiser, Adam's first decay
    decay: of the weights, not of biases and scales
    temperature: of the teacher's soft targets
    labels: weight of the cross-entropy with the labels; the teacher has the rest
    features: weight of the difference from the teacher's inner tensors
    average: decay of a moving average of the weights that takes their place in the end, 0 for none; left open 0.998
        where the start is gentle, else none
    clip: largest norm of the gradient, 0 for any
    augment: of `augment.WORDS`; None is crop and flip for images, nothing for arrays
    precision: of the forward pass; "auto" is bfloat16 where the hardware multiplies it
    train_samples: so many of the training data, of each class the same number where there are labels; 0 for all
    workers: processes that decode images which do not fit into memory, 0 for one a core
    batch_norm: whether convolutions whose BatchNormalization was folded get one for the training
    frozen_statistics: whether BatchNormalization normalises by its running statistics in training too, which stay; left
        open, where the start is gentle
    scratch: whether weights are drawn anew first, so that nothing but the shape of the network is used
    seed: of all that is drawn
    """

    epochs: int = 5
    updates: int = 0
    batch: int = 128
    rate: float | None = None
    warmup: float = 0.05
    schedule_rate: RateSchedule = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    optimiser: Optimiser | None = None
    momentum: float = 0.9
    decay: float = 5e-4
    temperature: float = 4.0
    labels: float = 0.1
    features: float = 0.0
    average: float | None = None
    clip: float = 5.0
    augment: tuple[str, ...] | None = None
    precision: Precision = "auto"
    train_samples: int = 0
    workers: int = 0
    batch_norm: bool = True
    frozen_statistics: bool | None = None
    scratch: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if value is None:
                continue
            if not (low <= value <= high and math.isfinite(value)):
                wanted = f"at least {low}" if high == math.inf else f"from {low} to {high}"
                raise UsageError(f"{value} is out of range", where=f"--{name}", fix=f"give a number of {wanted}")
        if (self.schedule_rate == "steps") != bool(self.milestones):
            raise UsageError(
                f"a rate that goes in {self.schedule_rate}, and milestones {list(self.milestones)}",
                where="--schedule-rate",
                fix="give --milestones 160,240 with --schedule-rate steps, and neither with the others",
            )
        _one_of("schedule_rate", self.schedule_rate, get_args(RateSchedule))
        _one_of("precision", self.precision, get_args(Precision))
        _one_of("optimiser", self.optimiser or "sgd", get_args(Optimiser))
        for word in self.augment or ():
            if word not in WORDS:
                raise UsageError(f"there is no '{word}'", where="--augment", fix=f"choose among {', '.join(WORDS)}")

    def settled(self, *, gentle: bool = True) -> Recipe:
        """The recipe with what was left open decided.

        A network that was cut and refitted is good already, and steps that are large at first destroy that. So where
        neither rate nor optimiser is said they are small and alike for all weights (Adam), BatchNormalization
        normalises by what it normalises by when the network is used, and an average of the weights counts. Who says
        a rate, milestones or `scratch` has SGD, as papers do; gentle: whether weights change by steps alone.
        """
        said = self.rate is not None or self.optimiser is not None or self.scratch or bool(self.milestones)
        if said or not gentle:
            optimiser = self.optimiser or "sgd"
            rate = _RATES[optimiser] if self.rate is None else self.rate
            average, frozen = self.average or 0.0, bool(self.frozen_statistics)
            return replace(self, optimiser=optimiser, rate=rate, average=average, frozen_statistics=frozen)
        average = _AVERAGE if self.average is None else self.average
        frozen = self.frozen_statistics is not False
        return replace(self, optimiser="adam", rate=_RATES["adam"], average=average, frozen_statistics=frozen)

    def between(self) -> Recipe:
        """The recipe of one epoch between two cuts: milestones, which it would not reach, are left out."""
        constant = {"milestones": (), "schedule_rate": "constant"} if self.milestones else {}
        return replace(self, epochs=1, updates=0, **constant)

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step of `steps`: linear up to `rate`, then what `schedule_rate` says.

        cosine: rate * (1 + cos(pi * progress)) / 2; steps: rate * gamma^(milestones that are passed).
        """
        highest = self.settled().rate
        assert highest is not None, "it is settled"
        rising = round(self.warmup * steps)
        if step < rising:
            return highest * (step + 1) / (rising + 1)
        if self.schedule_rate != "cosine":
            epoch = step / max(steps, 1) * self.epochs
            return highest * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return highest * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1))) / 2


def _one_of(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise UsageError(f"{name} is {value!r}", where="the recipe", fix=f"choose one of {', '.join(words)}")


_BOUNDS = (
    ("epochs", 1, math.inf),
    ("updates", 0, math.inf),
    ("train_samples", 0, math.inf),
    ("workers", 0, math.inf),
    ("gamma", 0, 1),
    ("batch", 1, math.inf),
    ("rate", 0, math.inf),
    ("warmup", 0, 1),
    ("momentum", 0, 1),
    ("decay", 0, math.inf),
    ("temperature", 1e-3, math.inf),
    ("labels", 0, 1),
    ("features", 0, math.inf),
    ("average", 0, 1),
    ("clip", 0, math.inf),
    ("seed", 0, math.inf),
)
