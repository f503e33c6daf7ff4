"""The loop: steps and epochs, what they add up to, and the state from which they go on exactly as they would have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....passes.errors import AccuracyError, UsageError
from ...progress import Stage
from ..graph_module import GraphModule
from .batch_norm import renew_statistics
from .data import Share, TrainingData
from .distributed import Processes, batch_norm
from .features import Recorder, common_features, feature_distance
from .losses import Labels, StepLoss, make_step_loss
from .optimiser import in_bfloat16, make_optimiser
from .recipe import Recipe
from .run import Epoch

Weights = dict[str, Tensor]
MEASURED = 1024  # samples that statistics of BatchNormalization are measured on
_EVALUATED = 256  # samples a batch
_TOLD_EVERY = 0.5  # seconds


class Pair(NamedTuple):
    """What is trained, and what teaches it."""

    student: GraphModule
    teacher: GraphModule | None


class Training:
    """A run: `pair` trained on `data` by `recipe`. Everything that changes is in `state()`."""

    doing = "fine-tuning"  # as it is called where it says how far it is

    def __init__(
        self, pair: Pair, data: TrainingData, evaluation: TrainingData | None, recipe: Recipe, processes: Processes
    ) -> None:
        """Raises UsageError where there is nothing to learn from."""
        self.student, self.teacher = pair
        recipe = recipe.settled()
        self.data, self.evaluation, self.recipe, self.processes = data, evaluation, recipe, processes
        if processes.count > 1:
            self.student.batch_norm = batch_norm
        self.device = data.device
        self.half = in_bfloat16(recipe, self.device)
        self.steps = max(data.samples.count // recipe.batch, 1)  # an epoch; a rest that fills no batch waits
        self.updates = recipe.updates or recipe.epochs * self.steps
        self.rounds = -(-self.updates // self.steps)  # epochs, the last of which may be a part of one
        self.objective, self.features = self._look()
        self.optimiser = make_optimiser(self.student, recipe)
        self.epoch, self.step = 0, 0  # those that are finished
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, right, samples
        self.averaged: Weights | None = self.weights() if recipe.average else None
        self.best: dict[str, Any] | None = None
        self.epochs: list[Epoch] = []
        self._elapsed, self._begun = 0.0, time.perf_counter()  # of the epoch: before this process, in it
        self._started, self._done = self._begun, 0

    def _look(self) -> tuple[StepLoss, tuple[str, ...]]:
        """The objective, and the tensors to be matched, found on a few samples."""
        count = min(self.recipe.batch, self.data.samples.count)
        inputs, _ = next(self.data.batches([Share(np.arange(count))]))
        self.student.eval()
        with torch.no_grad():
            example = (self.teacher or self.student)(*inputs)
        taught = self.teacher is not None
        objective = make_step_loss(self.recipe, example, count, taught=taught, classes=self.data.classes)
        names: tuple[str, ...] = ()
        if self.teacher is not None and self.recipe.features:
            names = common_features(self.student, self.teacher, inputs)
            if not names:
                raise UsageError(
                    "the two models have no inner tensor of the same name and shape",
                    where="--features",
                    fix="leave it out, or keep the channels of the residual sums (--exclude)",
                )
        return objective, names

    # ---- one epoch

    def run_epoch(self, tick: Callable[[], bool], tell: Stage) -> bool:
        """The steps of the current epoch that are left; whether it was asked to stop in between.

        tick: called after each step, says whether somebody asks to stop; tell: is told how far it is.
        Raises AccuracyError where the loss is no number any more.
        """
        rng = np.random.default_rng((self.recipe.seed, self.epoch))
        order, size = rng.permutation(self.data.samples.count), self.recipe.batch
        part = self.processes.part(min(size, len(order)))
        steps = range(self.step, min(self.steps, self.updates - self.epoch * self.steps))
        shares = [self.data.share(order[s * size : (s + 1) * size], part, self._rng(s)) for s in steps]
        told = 0.0
        for inputs, labels in self.data.batches(shares):
            stop = self._take_step(inputs, labels, tick())
            if time.perf_counter() - told > _TOLD_EVERY:
                told = time.perf_counter()
                tell(self._line())
            if stop:
                return True
        return False

    def _rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng((self.recipe.seed, self.epoch, step + 1))

    def _take_step(self, inputs: Sequence[Tensor], labels: Labels | None, stop: bool) -> bool:
        """Forward, backward, gradients summed over the processes, one step; whether any process was asked to stop."""
        torch.manual_seed(int(self._rng(self.step).integers(2**62)) + self.processes.rank)  # Dropout in the graph
        rate = self.recipe.rate_at(self.epoch * self.steps + self.step, self.updates)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.student.train()
        loss, scores, wanted = self._loss(inputs, labels)
        self.optimiser.zero_grad()
        (loss / min(self.recipe.batch, self.data.samples.count)).backward()
        parameters = list(self.student.parameters())
        stop = self.processes.sum_gradients(parameters, stop)
        if self.recipe.clip:
            torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self.optimiser.step()
        self.step, self._done = self.step + 1, self._done + 1
        if self.averaged is not None:
            self._average(self.averaged)
        with torch.no_grad():
            self.sums += _added(loss, scores, wanted, len(inputs[0]))
        return stop

    def _loss(self, inputs: Sequence[Tensor], labels: Labels | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The loss; the student's logits, and the classes that are right, where outputs are classes."""
        teacher = None
        watched = Recorder(self.features), Recorder(self.features)
        if self.teacher is not None:
            with torch.no_grad(), self._cast():
                teacher = self.teacher(*inputs, edits=watched[1].edits)
        with self._cast():
            student = self.student(*inputs, edits=watched[0].edits)
        loss = self.objective(student, teacher, labels)
        if self.features:
            loss = loss + self.recipe.features * feature_distance(*watched)
        if not any(self.objective.classifies):
            return loss, None, None
        if labels is not None:
            return loss, self.objective.scores(student), labels.own
        assert teacher is not None
        return loss, self.objective.scores(student), self.objective.scores(teacher).argmax(1)

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _average(self, averaged: Weights) -> None:
        """Average <- d average + (1 - d) weights; d grows at first, so that the start is soon forgotten."""
        count = self.epoch * self.steps + self.step
        rest = 1 - min(self.recipe.average or 0.0, (1 + count) / (10 + count))
        for name, value in self._live().items():
            if value.is_floating_point():
                averaged[name].lerp_(value, rest)

    # ---- between epochs

    def finish_epoch(self, *, choose: bool) -> Epoch:
        """Measure, note and count the epoch; choose: whether the best one is to be kept, not the last."""
        loss, right, samples = self.processes.sum(self.sums.clone()).tolist()
        if not math.isfinite(loss):
            raise AccuracyError(
                "the training has diverged: the loss is not a number",
                where=f"epoch {self.epoch + 1}",
                fix="give a lower --rate; nothing was written",
            )
        score = self.measure()
        known = any(self.objective.classifies)
        row = Epoch(
            number=self.epoch + 1,
            loss=loss / samples,
            right=right / samples if known else None,
            score=score,
            rate=self.optimiser.param_groups[0]["lr"],
            seconds=self._elapsed + time.perf_counter() - self._begun,
        )
        self.note(row, choose=choose)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums.zero_()
        self._elapsed, self._begun = 0.0, time.perf_counter()
        return row

    def note(self, row: Epoch, *, choose: bool) -> None:
        """Keep its weights if they are the best; of equal ones the latest."""
        self.epochs.append(row)
        before = None if self.best is None else self.best["score"]
        if not choose or before is None or row.score is None or row.score >= before:
            values = self.weights() if self.averaged is None else {n: v.clone() for n, v in self.averaged.items()}
            self.best = {"epoch": row.number, "score": row.score, "weights": values}

    def score_start(self) -> None:
        """Note the model before the first epoch."""
        self.note(Epoch(0, None, None, self.measure(), 0.0, 0.0), choose=True)

    def measure(self) -> float | None:
        """The score on the evaluation data, None where there are none: see `Epoch`."""
        if self.evaluation is None:
            return None
        loss, right, samples = self.measured()
        return right / samples if any(self.objective.classifies) else -loss / samples

    def measured(self) -> tuple[float, float, float]:
        """Sums over the evaluation data: the loss, samples that are right, and samples."""
        assert self.evaluation is not None
        size = self.evaluation.batch or _EVALUATED
        count = self.evaluation.samples.count
        count -= count % size if self.evaluation.batch else 0
        starts = range(0, count, size)[self.processes.rank :: self.processes.count]
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.student.eval()
        with torch.no_grad(), self.holding(self.averaged):
            shares = [Share(np.arange(s, min(s + size, count))) for s in starts]
            for inputs, labels in self.evaluation.batches(shares):
                loss, scores, wanted = self._loss(inputs, labels)
                sums += _added(loss, scores, wanted, len(inputs[0]))
        loss, right, samples = self.processes.sum(sums).tolist()
        return loss, right, samples

    def renew_statistics(self) -> None:
        """Take BatchNormalization's running statistics from the weights as they are now, on samples as they are."""
        drawn = self.data.drawn(MEASURED, self.recipe.batch, np.random.default_rng((self.recipe.seed, self.epoch)))
        shares = [Share(part[self.processes.part(len(part))]) for part in drawn]
        renew_statistics(self.student, (inputs for inputs, _ in self.data.batches(shares)))

    # ---- state

    def _live(self) -> Weights:
        return {n: v.detach() for n, v in self.student.state_dict().items()}

    def weights(self) -> Weights:
        """A copy of all that the student has learned."""
        return {name: value.clone() for name, value in self._live().items()}

    @contextmanager
    def holding(self, weights: Weights | None) -> Generator[None]:
        """The student with other weights for a while; None: its own."""
        if weights is None:
            yield
            return
        own = self.weights()
        self.student.load_state_dict(weights)
        try:
            yield
        finally:
            self.student.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run follows from: the random numbers follow from seed, epoch and step."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "weights": self._live(),
            "optimiser": self.optimiser.state_dict(),
            "averaged": self.averaged,
            "best": self.best,
            "sums": self.sums,
            "epochs": [asdict(row) for row in self.epochs],
            "elapsed": self._elapsed + time.perf_counter() - self._begun,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.student.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.averaged, self.best = state["averaged"], state["best"]
        if self.averaged is not None:
            self.averaged = {name: value.to(self.device) for name, value in self.averaged.items()}
        self.sums = state["sums"].to(self.device)
        self.epochs = [Epoch(**row) for row in state["epochs"]]
        self._elapsed, self._begun = state["elapsed"], time.perf_counter()

    def _line(self) -> str:
        """How far it is, for a person."""
        loss, right, samples = self.sums.tolist()
        left = self.updates - self.epoch * self.steps - self.step
        seconds = (time.perf_counter() - self._started) / max(self._done, 1) * left
        accuracy = f", {right / samples:.1%} right" if any(self.objective.classifies) else ""
        return (
            f"{self.doing}: epoch {self.epoch + 1} of {self.rounds}, {self.step / self.steps:.0%}, "
            f"loss {loss / samples:.4f}{accuracy}, {seconds // 60:.0f}:{seconds % 60:02.0f} left"
        )


def _added(loss: Tensor, scores: Tensor | None, wanted: Tensor | None, count: int) -> Tensor:
    right = loss.new_zeros(()) if scores is None or wanted is None else (scores.argmax(1) == wanted).sum()
    return torch.stack([loss.detach().double(), right.double(), loss.new_tensor(count).double()])
