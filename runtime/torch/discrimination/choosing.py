"""The channels of one group, as the greedy algorithm sees them: loss, gradients, descent on what reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ....passes.errors import AccuracyError

Array = np.ndarray
_MOMENTUM = 0.9
_RUNAWAY, _HALVINGS = 10.0, 24  # times L_0; of the rate, at most


@dataclass(frozen=True, slots=True)
class Slices:
    """Where a weight has the slices of the group's units: axis, and (units, m) indices along it."""

    weight: nn.Parameter
    axis: int
    places: Tensor

    def of(self, values: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """The values with that axis in front, and the indices of these units on it."""
        return values.movedim(self.axis, 0), self.places[units].flatten()


class Choosing:
    """A `greedy.Layer`: the weights that read the group's channels, at zero but for those that are admitted.

    A channel that is admitted begins with the weights that it had. The rest of a weight (channels of other groups)
    stays as it is. Losses are means over the samples.
    """

    def __init__(
        self, slices: Sequence[Slices], loss: Callable[[int], Tensor], sizes: Sequence[int], rate: float
    ) -> None:
        """loss: of a batch by its number, a mean over its samples; sizes: of the batches; rate: of the descent."""
        self.slices, self.loss, self.sizes = slices, loss, sizes
        self.before = [part.weight.detach().clone() for part in slices]
        self.open = [torch.zeros_like(part.weight) for part in slices]
        with torch.no_grad():
            for part in slices:
                rows, at = part.of(part.weight, torch.arange(len(part.places)))
                rows[at] = 0
                part.weight.requires_grad_(True)
        self.optimiser = torch.optim.SGD([part.weight for part in slices], lr=rate, momentum=_MOMENTUM, nesterov=True)
        self.seen: tuple[float, Array] | None = None  # of the weights as they are
        self.first = self.look()[0]  # L_0, without any channel

    def look(self) -> tuple[float, Array]:
        """The loss at the weights as they are, and |dL/dW_k|_F of every channel, (units,) float64."""
        if self.seen is None:
            self.optimiser.zero_grad()
            total, count = 0.0, sum(self.sizes)
            for number, size in enumerate(self.sizes):
                loss = self.loss(number) * (size / count)
                loss.backward()
                total += float(loss.detach())
            self.seen = total, np.sqrt(sum(_squares(part) for part in self.slices))
        return self.seen

    def admit(self, channels: Array) -> None:
        """From now on these have weights as well: those that they had."""
        self.seen = None
        units = torch.from_numpy(np.asarray(channels))
        with torch.no_grad():
            for part, before, opened in zip(self.slices, self.before, self.open, strict=True):
                rows, at = part.of(part.weight, units)
                rows[at] = part.of(before, units)[0][at]
                part.of(opened, units)[0][at] = 1

    def descend(self) -> None:
        """One pass of stochastic gradient descent on the weights of the channels that are admitted.

        Where it runs away, beyond ten times L_0 and what the admitted ones begin with, it begins anew at half of the
        rate, which then stays. Raises AccuracyError where none helps.
        """
        start, most = [part.weight.detach().clone() for part in self.slices], _RUNAWAY * self.first
        for attempt in range(_HALVINGS):
            if self._pass(most) and self.look()[0] <= most:
                return
            self.seen = None
            with torch.no_grad():
                for part, before in zip(self.slices, start, strict=True):
                    part.weight.copy_(before)
            self.optimiser.state.clear()
            if attempt == 0:
                most = max(most, _RUNAWAY * self.look()[0])
            for group in self.optimiser.param_groups:
                group["lr"] /= 2
        raise AccuracyError(
            "the selection of channels has diverged: the loss grows at any rate",
            where="--criterion dcp",
            fix="check the data and their preprocessing, or give a lower rate, such as dcp:rate=0.0001",
        )

    def _pass(self, most: float) -> bool:
        """Whether every loss on the way was a number, and none beyond that."""
        for number in range(len(self.sizes)):
            self.optimiser.zero_grad()
            loss = self.loss(number)
            if not float(loss.detach()) <= most:
                return False
            loss.backward()
            for part, opened in zip(self.slices, self.open, strict=True):
                assert part.weight.grad is not None
                part.weight.grad *= opened
            self.optimiser.step()
        self.seen = None
        return True


def _squares(part: Slices) -> Array:
    """(units,) float64: the squared norm of the gradient on each unit's slices."""
    assert part.weight.grad is not None
    rows = part.weight.grad.movedim(part.axis, 0).flatten(1).double().square().sum(1)
    return rows.cpu().numpy()[part.places.numpy()].sum(1)
