"""A run of training: what it learns from, where it is kept, who is told, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from ...data.open import DataSource
from ...data.preprocess import Preprocessing
from ...progress import Stage, silent


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch; number 0 is the model before it.

    number: which one
    loss: mean over the samples
    right: share of the samples whose class was the highest output; without labels, the teacher's class
    score: the same on the evaluation data; for outputs that are no classes, minus the loss
    rate: the learning rate at its end
    seconds: how long it took
    """

    number: int
    loss: float | None
    right: float | None
    score: float | None
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Examples:
    """What is learned from.

    train: data, see `runtime.data.open_data`
    evaluation: data that decide which epoch stays
    preprocessing: of images, the same for both
    teacher: the model before pruning, of the same inputs and outputs; without it the labels alone teach
    """

    train: DataSource
    evaluation: DataSource | None = None
    preprocessing: Preprocessing | None = None
    teacher: onnx.ModelProto | None = None


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where the run's state is kept.

    folder: the place, None for nowhere
    resume: go on from what is there
    seconds: how often it is written, beside after every epoch
    """

    folder: Path | None = None
    resume: bool = False
    seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told.

    stage: gets a line whenever something is done
    epoch: gets each epoch that is finished
    """

    stage: Stage = silent
    epoch: Callable[[Epoch], None] = lambda row: None


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The model with its new weights, and how it went.

    model: the model
    epochs: all of them, the first is the model before training
    best: the epoch whose weights these are: the best on the evaluation data where there are some, else the last
    agreement: largest difference between ONNX Runtime and the trained module, over the largest output
    seconds: how long it took
    first: whether this process, of several, is the one that writes
    """

    model: onnx.ModelProto
    epochs: tuple[Epoch, ...]
    best: int
    agreement: float
    seconds: float
    first: bool = True

    def as_dict(self) -> dict[str, object]:
        """As JSON."""
        rows = [asdict(epoch) for epoch in self.epochs]
        return {"epochs": rows, "best": self.best, "agreement": self.agreement, "seconds": self.seconds}
