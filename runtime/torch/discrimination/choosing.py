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

    def look(self) -> tuple[float, Array]:
        """The loss at the weights as they are, and |dL/dW_k|_F of every channel, (units,) float64."""
        self.optimiser.zero_grad()
        total, count = 0.0, sum(self.sizes)
        for number, size in enumerate(self.sizes):
            loss = self.loss(number) * (size / count)
            loss.backward()
            total += float(loss.detach())
        if not np.isfinite(total):
            raise AccuracyError(
                "the selection of channels has diverged: the loss is not a number",
                where="--criterion dcp",
                fix="give a lower rate, such as dcp:rate=0.001",
            )
        return total, np.sqrt(sum(_squares(part) for part in self.slices))

    def admit(self, channels: Array) -> None:
        """From now on these have weights as well: those that they had."""
        units = torch.from_numpy(np.asarray(channels))
        with torch.no_grad():
            for part, before, opened in zip(self.slices, self.before, self.open, strict=True):
                rows, at = part.of(part.weight, units)
                rows[at] = part.of(before, units)[0][at]
                part.of(opened, units)[0][at] = 1

    def descend(self) -> None:
        """One pass of stochastic gradient descent on the weights of the channels that are admitted."""
        for number in range(len(self.sizes)):
            self.optimiser.zero_grad()
            self.loss(number).backward()
            for part, opened in zip(self.slices, self.open, strict=True):
                assert part.weight.grad is not None
                part.weight.grad *= opened
            self.optimiser.step()


def _squares(part: Slices) -> Array:
    """(units,) float64: the squared norm of the gradient on each unit's slices."""
    assert part.weight.grad is not None
    rows = part.weight.grad.movedim(part.axis, 0).flatten(1).double().square().sum(1)
    return rows.cpu().numpy()[part.places.numpy()].sum(1)
