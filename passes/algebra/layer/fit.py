"""The refit of one layer on rows of its inputs: what ridge, what targets behind an activation, and whether it helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..gram import power_of_two
from ..least_squares import Refit
from ..normal_equations import RIDGES, NormalEquations
from .activation_functions import ActivationFunction

Array = np.ndarray
ROUNDS = 8  # of the fit in front of an activation, at most
_JUDGED = 4096  # held-out rows that tell ridges apart
_ENOUGH = 0.01  # the share by which a round has to lower the error for another one to follow
_NEXT = 1e-3  # the share by which a smaller ridge has to lower the held-out error for the next one to be tried
_BLOCK = 4096  # rows that are multiplied in single precision before they are summed in double
_IN_CACHE = 1 << 19  # numbers of a block of rows that several things are done with, before the next one is read
_FEWEST = 256  # rows of such a block, for the sake of the products
_HELD_OUT = 4  # every so manieth sample


class Rows(NamedTuple):
    """Samples of a layer, float32 (R, .): inputs X, wanted outputs Z, and what others add to the layer's output."""

    X: Array
    Z: Array
    offset: Array

    def __len__(self) -> int:
        return len(self.X)

    def at(self, which: Array | slice) -> Rows:
        return Rows(self.X[which], self.Z[which], self.offset[which] if len(self.offset) > 1 else self.offset)

    def blocks(self) -> Iterator[Rows]:
        """So many rows at a time that what is computed of them stays in the cache."""
        step = max(_IN_CACHE // (self.X.shape[1] + 3 * self.Z.shape[1]), _FEWEST)
        return (self.at(slice(first, first + step)) for first in range(0, len(self), step))


class Fitted(NamedTuple):
    """The constants of a layer, and why they are those of the cut, None where they were refitted."""

    refit: Refit
    left: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LayerFit:
    """min E|a(W x + b + offset) - a(z)|^2 near the weights of the cut layer, a the activation behind it.

    start: the layer as it was cut, weight (n, K, k); biased: whether the bias is fitted too; rounds: of the fit in
    front of an activation, at most; stored: (n, K, k) -> the weights nearest to these that can be stored, None for
    any: of integers with given scales, which round and clip.
    Source: He et al. 2017, section 3.3; `activations` has the targets of the rounds.
    """

    start: Refit
    activation: ActivationFunction | None = None
    biased: bool = True
    rounds: int = ROUNDS
    stored: Callable[[Array], Array] | None = None

    def __call__(self, rows: Rows, samples: Array) -> Fitted:
        """Fit to all rows, of which some first decide; samples: (R,) whose rows are held out or not together.

        The ridge errs least on every fourth sample after a fit to the others; where no fit errs less there than the
        layer as it was cut, that stays. Rows that are not finite are left out.
        """
        finite = _finite(rows.X) & _finite(rows.Z) & _finite(rows.offset)
        if not finite.all():
            rows, samples = rows.at(finite), samples[finite]
        if not len(rows):
            return Fitted(self.start, "its inputs are not finite")
        x, z = power_of_two(rows.X), power_of_two(rows.Z)
        if x != 1 or z != 1:
            return self._in_units(rows, samples, x, z)
        order = np.unique(samples, return_inverse=True)[1]
        held_out = order % _HELD_OUT == _HELD_OUT - 1 if order.max() > 0 else np.arange(len(rows)) % 2 == 1
        try:
            return self._fit(rows, held_out)
        except np.linalg.LinAlgError:
            return Fitted(self.start, "its inputs are beyond what can be computed with")

    def _in_units(self, rows: Rows, samples: Array, x: float, z: float) -> Fitted:
        """The fit of rows that are brought near 1, in front of no activation."""
        start = Refit(self.start.weight * (z / x), self.start.bias * z)
        units = Rows(rows.X * np.float32(x), rows.Z * np.float32(z), rows.offset * np.float32(z))
        own = self.stored
        stored = None if own is None else lambda W: own(W * (x / z)) * (z / x)
        refit, left = LayerFit(start, None, self.biased, self.rounds, stored)(units, samples)
        return Fitted(Refit(refit.weight * (x / z), refit.bias / z), left) if left is None else Fitted(self.start, left)

    def _fit(self, rows: Rows, held_out: Array) -> Fitted:
        if not held_out.any():  # two or three samples
            held_out = np.arange(len(rows)) >= len(rows) - max(len(rows) // _HELD_OUT, 1)
        rows, first = rows.at(np.argsort(held_out, kind="stable")), int((~held_out).sum())
        judged = rows.at(slice(first, None))
        moments = self._counted(rows.at(slice(first))) if first else None
        ridge = None if moments is None else self._ridge(moments, judged)
        if moments is None or ridge is None:
            return Fitted(self.start, "on held-out samples a fit was no better than the layer as it was cut")
        _count(moments, judged)
        refit = self._solved(moments, ridge)
        if self.activation is not None and math.isfinite(ridge):
            refit = self._in_rounds(moments, rows, refit, ridge)
        finite = np.isfinite(refit.weight).all() and np.isfinite(refit.bias).all()
        return Fitted(refit) if finite else Fitted(self.start, "its fit is not finite")

    def _ridge(self, moments: NormalEquations, held_out: Rows) -> float | None:
        """The ridge that errs least, the largest of equals; infinite for a new bias alone; None for neither.

        From large to small, until one brings next to nothing: each of them costs a factorisation.
        """
        held_out = held_out.at(np.arange(0, len(held_out), -(-len(held_out) // _JUDGED)))
        best, error = None, self._error(held_out, self.start)
        for ridge in (math.inf, *sorted(RIDGES, reverse=True)):
            found = self._error(held_out, self._solved(moments, ridge))
            least = error
            if found < error or (best is None and found <= error):
                best, error = ridge, found
            if math.isfinite(ridge) and found > (1 - _NEXT) * least:
                break
        return best

    def _in_rounds(self, moments: NormalEquations, rows: Rows, refit: Refit, ridge: float) -> Refit:
        """Fits to targets that the last fit makes, while the error behind the activation falls."""
        best, least = self.start, _Step(self, rows, self.start).error()
        for left in range(self.rounds, -1, -1):
            step = _Step(self, rows, refit)
            following = moments.retargeted(step.targets()) if left else None
            squares = step.error() if following is None else step.squares
            if squares > (1 - _ENOUGH) * least and best is not self.start:
                return refit if squares < least else best
            if squares < least:
                best, least = refit, squares
            elif following is not None:
                following = moments.retargeted(_Step(self, rows, best).targets())
            if following is not None:
                refit = self._solved(following, ridge)
        return best

    def _solved(self, moments: NormalEquations, ridge: float) -> Refit:
        bias = None if self.biased else self.start.bias
        W = self.start.weight
        found = moments.centred(W, bias=bias) if math.isinf(ridge) else moments.solve(W, ridge, bias=bias)
        return found if self.stored is None else moments.centred(self.stored(found.weight), bias=bias)

    def _counted(self, rows: Rows) -> NormalEquations:
        moments = NormalEquations(rows.X.shape[1], rows.Z.shape[1])
        _count(moments, rows)
        return moments

    def _error(self, rows: Rows, refit: Refit) -> float:
        """Mean of |z - z'|^2 over the rows; infinite where it is not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            off = (_outputs(rows, refit) - rows.Z).ravel()
            error = float(off @ off) / max(off.size, 1)
        return error if math.isfinite(error) else math.inf


@dataclass(slots=True, eq=False)
class _Step:
    """What one fit of a layer gives: how far it is behind the activation, and the targets of the next.

    squares: |a(z') - a(z)|^2 over the rows whose targets were asked for.
    """

    layer: LayerFit
    rows: Rows
    refit: Refit
    squares: float = 0.0

    def error(self) -> float:
        """The squares of all rows."""
        for block in self.rows.blocks():
            self._now(block)
        return self.squares

    def targets(self) -> Iterator[tuple[Array, Array]]:
        """Inputs and targets of all rows, less what others add to the output."""
        assert self.layer.activation is not None
        for block in self.rows.blocks():
            target = self.layer.activation.target(self._now(block), block.Z)
            yield block.X, target - block.offset if block.offset.any() else target

    def _now(self, block: Rows) -> Array:
        assert self.layer.activation is not None
        now = _outputs(block, self.refit)
        off = (self.layer.activation(now) - self.layer.activation(block.Z)).ravel()
        self.squares += float(off @ off)
        return now


def _count(moments: NormalEquations, rows: Rows) -> None:
    for at in range(0, len(rows), _BLOCK):
        block = rows.at(slice(at, at + _BLOCK))
        moments.add(block.X, block.Z - block.offset if block.offset.any() else block.Z)


def _finite(X: Array) -> Array:
    """One bool a row."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(X @ np.ones(X.shape[1], X.dtype))


def _outputs(rows: Rows, refit: Refit) -> Array:
    W = refit.weight.reshape(len(refit.bias), -1).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        now = rows.X @ W.T
        now += refit.bias.astype(np.float32)
        return now + rows.offset if rows.offset.any() else now
