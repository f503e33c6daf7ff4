"""The refit of two layers together: what the first makes of its inputs is to serve the second, and nothing else.

The kept channels between two layers need not be what the original had there: E|a2(W2 a1(W1 x + b1) + b2 + offset) -
a2(z)|^2 counts alone. Adam lowers it from the weights of the two layers' own fits, on whole maps of some samples, so
that each position of the first layer serves all positions of the second that read it.
Source: a block as the unit of reconstruction: Li et al., BRECQ, ICLR 2021; Adam: Kingma, Ba 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..least_squares import Refit
from .activation_functions import ActivationFunction, Clipped, Smooth

Array = np.ndarray
_HELD_OUT = 8  # every so manieth sample is judged by
_POSITIONS = 2048  # of the second layer a step, about
_RISING = 10  # steps at first
_STEP = 1e-3  # of the difference quotient


class Maps(NamedTuple):
    """What a pair reads and is to give, float32.

    X: (N, rows, C), the first layer's input; Z: (N, grid, n), what the original has behind the second; offset: (N,
    grid, n), what other branches of the cut network add to it, None for nothing
    """

    X: Array
    Z: Array
    offset: Array | None

    def at(self, which: Array) -> Maps:
        return Maps(self.X[which], self.Z[which], None if self.offset is None else self.offset[which])

    @property
    def finite(self) -> bool:
        """Whether all of them are."""
        return all(array is None or bool(np.isfinite(array).all()) for array in self)


@dataclass(frozen=True, slots=True)
class PairFit:
    """min E|a2(y) - a2(z)|^2 over the weights of two layers, y = W2 a1(W1 x + b1) + b2 + offset.

    first, second: (rows of the layer's output, k) int64, the rows of its input under each kernel position, -1 for
        padding; inner: a1; outer: a2, None for the identity; epochs, rate: of Adam, the rate falling as a cosine
    """

    first: Array
    second: Array
    inner: ActivationFunction
    outer: ActivationFunction | None
    epochs: int = 2
    rate: float = 3e-3
    seed: int = 0

    def __call__(self, before: tuple[Refit, Refit], maps: Maps) -> tuple[Refit, Refit] | None:
        """Better constants of the two layers than `before`, judged on every eighth sample, which no step sees.

        None where there are none, or the maps are too few or not finite.
        """
        number = np.arange(len(maps.X))
        held_out, seen = number[number % _HELD_OUT == _HELD_OUT - 1], number[number % _HELD_OUT != _HELD_OUT - 1]
        scale = float(np.square(self._behind(maps.Z[seen[:_HELD_OUT]]), dtype=np.float64).mean()) if len(seen) else 0.0
        if not len(held_out) or not maps.finite or not math.isfinite(scale) or scale <= 0:
            return None
        net = _Net(self, before)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            least = net.error(maps, held_out)
            net.descend(maps, seen, scale)
            if not net.error(maps, held_out) < least:
                return None
        return net.refits(*before)

    def _behind(self, y: Array) -> Array:
        return y if self.outer is None else self.outer(y)

    @property
    def samples(self) -> int:
        """At once, in one step."""
        return max(1, _POSITIONS // max(len(self.second), 1))


class _Net:
    """The two layers on their way, as (k * C, n) float32 each."""

    def __init__(self, fit: PairFit, before: tuple[Refit, Refit]) -> None:
        self.fit = fit
        (W1, b1), (W2, b2) = before
        self.moving = [_by_position(W1), b1.astype(np.float32), _by_position(W2), b2.astype(np.float32)]
        # h of a function whose steepest slope is counted as 1
        self._steep = np.float32(fit.inner.steepest if isinstance(fit.inner, Smooth) else 1.0)
        self._readers = [_readers(column, len(fit.first)) for column in fit.second.T]

    def forward(self, maps: Maps) -> tuple[Array, Array, Array, Array]:
        """Patches of the inputs, what stands in front of the activation, patches behind it, and the output y."""
        W1, b1, W2, b2 = self.moving
        x = _patches(maps.X, self.fit.first)
        z = x @ W1 + b1
        h = _patches((self.fit.inner(z) * self._steep).reshape(len(maps.X), len(self.fit.first), -1), self.fit.second)
        y = h @ W2 + b2
        return x, z, h, y if maps.offset is None else y + maps.offset.reshape(y.shape)

    def error(self, maps: Maps, which: Array) -> float:
        """Sum of |a2(y) - a2(z)|^2 over these samples; infinite where it is not finite."""
        far = 0.0
        for at in range(0, len(which), self.fit.samples):
            some = maps.at(which[at : at + self.fit.samples])
            y = self.forward(some)[3]
            far += float(np.square(self._difference(y, some.Z), dtype=np.float64).sum())
        return far if math.isfinite(far) else math.inf

    def descend(self, maps: Maps, seen: Array, scale: float) -> None:
        """Adam, in steps of some samples; ends where a step is not finite."""
        fit, rng = self.fit, np.random.default_rng(self.fit.seed)
        at_once = min(fit.samples, len(seen))
        adam = _Adam(self.moving, fit.rate, fit.epochs * (len(seen) // at_once))
        for _ in range(fit.epochs):
            order = rng.permutation(seen)
            for at in range(0, len(order) - at_once + 1, at_once):
                adam.step(self._gradients(maps.at(order[at : at + at_once]), scale))

    def _gradients(self, maps: Maps, scale: float) -> list[Array]:
        x, z, h, y = self.forward(maps)
        d = self._difference(y, maps.Z)
        d = d if self.fit.outer is None else d * _slope(self.fit.outer, y)
        d = d * np.float32(2 / (d.size * scale))
        dz = self._back(d @ self.moving[2].T, len(maps.X)).reshape(z.shape) * (_slope(self.fit.inner, z) * self._steep)
        return [x.T @ dz, dz.sum(0), h.T @ d, d.sum(0)]

    def _back(self, patches: Array, samples: int) -> Array:
        """The transposed of taking patches: (samples * grid, k * C) to (samples, rows, C)."""
        parts = patches.reshape(samples, *self.fit.second.shape, -1)
        made = np.zeros((samples, len(self.fit.first), parts.shape[3]), np.float32)
        for position, (at, unread) in enumerate(self._readers):
            read = parts[:, :, position].take(at, 1)
            read[:, unread] = 0
            made += read
        return made

    def _difference(self, y: Array, wanted: Array) -> Array:
        wanted = wanted.reshape(y.shape)
        outer = self.fit.outer
        return y - wanted if outer is None else outer(y) - outer(wanted)

    def refits(self, first: Refit, second: Refit) -> tuple[Refit, Refit]:
        """In the layers' own form."""
        W1, b1, W2, b2 = (values.astype(np.float64) for values in self.moving)
        return Refit(_by_channel(W1, first.weight), b1), Refit(_by_channel(W2, second.weight), b2)


class _Adam:
    """Steps of Adam on arrays in place, the rate rising at first and then falling to zero."""

    def __init__(self, moving: list[Array], rate: float, steps: int) -> None:
        self._moving, self._rate, self._steps, self._done = moving, rate, steps, 0
        self._mean, self._square = [np.zeros_like(p) for p in moving], [np.zeros_like(p) for p in moving]

    def step(self, gradients: list[Array]) -> None:
        rate = self._rate * (1 + math.cos(math.pi * self._done / self._steps)) / 2
        rate *= min(1.0, (self._done + 1) / _RISING)
        self._done += 1
        one, two = 1 - 0.9**self._done, 1 - 0.999**self._done
        for number, gradient in enumerate(gradients):
            mean, square = self._mean[number], self._square[number]
            mean += np.float32(0.1) * (gradient - mean)
            square += np.float32(0.001) * (gradient * gradient - square)
            far = np.sqrt(square / np.float32(two)) + np.float32(1e-8)
            self._moving[number][...] -= np.float32(rate / one) * mean / far


def _by_position(W: Array) -> Array:
    """(n, C, k) to (k * C, n) float32."""
    return np.ascontiguousarray(W.transpose(2, 1, 0).reshape(-1, W.shape[0]), np.float32)


def _by_channel(values: Array, like: Array) -> Array:
    n, C, k = like.shape
    return values.reshape(k, C, n).transpose(2, 1, 0)


def _patches(maps: Array, table: Array) -> Array:
    """(N, rows, C) to (N * grid, k * C), zeros for padding."""
    padded = np.concatenate([maps, np.zeros((len(maps), 1, maps.shape[2]), maps.dtype)], 1)
    return padded.take(table.ravel(), 1).reshape(len(maps) * len(table), -1)  # an index would leave it transposed


def _readers(column: Array, rows: int) -> tuple[Array, Array]:
    """Of one kernel position: where each row is read, any place for those that are not, and which those are.

    column: (grid,), the row that is read at each place, -1 for padding; no row is read twice.
    """
    at = np.zeros(rows, np.int64)
    inside = column >= 0
    at[column[inside]] = np.flatnonzero(inside)
    unread = np.ones(rows, bool)
    unread[column[inside]] = False
    return at, np.flatnonzero(unread)


def _slope(activation: ActivationFunction, z: Array) -> Array:
    if isinstance(activation, Clipped):
        return ((z > activation.low) & (z < activation.high)).astype(np.float32)
    return ((activation(z + np.float32(_STEP)) - activation(z - np.float32(_STEP))) / (2 * _STEP)).astype(np.float32)
