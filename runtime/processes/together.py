"""The processes that torchrun has started, as whoever needs no torch sees them: who this is, sums over all of them.

What a run computes is computed by every process alike, but for what is shared out: each takes its part of the samples
or of the groups, and gets the sum. Then all go on with the same numbers, and the first one writes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

Array = np.ndarray
Value = TypeVar("Value")


class Together(Protocol):
    """Several processes; every one of them must make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def total(self, arrays: Sequence[Array]) -> list[Array]:
        """The sums over the processes of these arrays, float64."""
        ...

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, in their order."""
        ...

    def same(self, value: Value) -> Value:
        """The first process's value."""
        ...


class Alone:
    """One process."""

    rank, count = 0, 1

    def total(self, arrays: Sequence[Array]) -> list[Array]:
        return list(arrays)

    def gathered(self, value: Value) -> list[Value]:
        return [value]

    def same(self, value: Value) -> Value:
        return value


def together() -> Together:
    """The processes of torchrun, joined for as long as this one lives; one alone without it."""
    return Alone() if int(os.environ.get("WORLD_SIZE", "1")) == 1 else _joined()


@functools.cache
def _joined() -> Together:
    from ..torch.training.distributed import joined_for_good  # needs torch

    return joined_for_good()
