"""How far a tensor of the cut model is from the twin's, channel by channel, and whether its numbers say anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(slots=True)
class Difference:
    """Of one tensor, a number a kept channel, over all runs.

    error, scale: the largest |a - b| and |b|
    low, high: the smallest and the largest finite b; inf and -inf where there is none
    least: what has to lie between these two, relative to the larger, so that it is not rounding
    constant: whether the tensor is computed from weights alone, so that one run shows all of it
    """

    error: Array
    scale: Array
    low: Array
    high: Array
    least: float = 0.0
    constant: bool = False

    @property
    def spread(self) -> Array:
        """How far b's finite numbers are apart; 0 where there is none."""
        return np.maximum(np.where(np.isfinite(self.low) & np.isfinite(self.high), self.high, 0) - self.low, 0)

    @property
    def varied(self) -> Array:
        """Whether b shows anything of the channel: a channel that is the same everywhere may be another one."""
        finite = np.isfinite(self.low) & np.isfinite(self.high)
        if self.constant:
            return finite
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        return finite & (self.spread > self.least * np.where(finite, largest, 0))

    def relative(self) -> Array:
        return np.where(self.error > 0, self.error / np.where(self.scale > 0, self.scale, 1), 0.0)

    def widen(self, earlier: tuple[Array, Array]) -> None:
        """Count the smallest and the largest b of earlier runs in."""
        if earlier[0].shape == self.low.shape:
            self.low, self.high = np.minimum(self.low, earlier[0]), np.maximum(self.high, earlier[1])


def unlike(a: Array, b: Array, channels: Sequence[int]) -> Difference:
    """One run: a that is not finite where b is differs by inf; where b is not, nothing is known."""
    if a.shape != b.shape:
        return Difference(np.array(np.inf), np.array(1.0), np.array(0.0), np.array(1.0))
    over = tuple(i for i in range(b.ndim) if i not in channels)
    with np.errstate(all="ignore"):
        error, scale, low, high = np.abs(a - b).max(over), np.abs(b).max(over), b.min(over), b.max(over)
        if not (np.isfinite(error).all() and np.isfinite(scale).all()):
            finite = np.isfinite(b)
            apart = np.where(finite, np.where(np.isfinite(a), np.abs(a - b), np.inf), 0)
            error, scale = apart.max(over), np.where(finite, np.abs(b), 0).max(over)
            low, high = np.where(finite, b, np.inf).min(over), np.where(finite, b, -np.inf).max(over)
    return Difference(np.asarray(error), np.asarray(scale), np.asarray(low), np.asarray(high))


def joined(known: Difference | None, now: Difference) -> Difference:
    """Both runs as one; of runs in other shapes the first one that all fits, but a wrong shape is never forgotten."""
    if known is None or (np.isinf(now.error).any() and not now.error.shape):
        return now
    if known.error.shape == now.error.shape:
        known.error, known.scale = np.maximum(known.error, now.error), np.maximum(known.scale, now.scale)
        known.widen((now.low, now.high))
    return known
