"""The refit of one layer on rows of its inputs: what ridge, what targets behind an activation, and whether it helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_HELD_OUT = 4  # every so manieth sample


class Rows(NamedTuple):
    """Samples of a layer, float32 (R, .): inputs X, wanted outputs Z, and what others add to the layer's output."""

    X: Array
    Z: Array
    offset: Array

    def __len__(self) -> int:
        return len(self.X)

    def at(self, which: Array) -> Rows:
        return Rows(self.X[which], self.Z[which], self.offset[which] if len(self.offset) > 1 else self.offset)


class Fitted(NamedTuple):
    """The constants of a layer, and why they are those of the cut, None where they were refitted."""

    refit: Refit
    left: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LayerFit:
    """min E|a(W x + b + offset) - a(z)|^2 near the weights of the cut layer, a the activation behind it.

    start: the layer as it was cut, weight (n, K, k); biased: whether the bias is fitted too; rounds: of the fit in
    front of an activation, at most.
    Source: He et al. 2017, section 3.3; `activations` has the targets of the rounds.
    """

    start: Refit
    activation: ActivationFunction | None = None
    biased: bool = True
    rounds: int = ROUNDS

    def __call__(self, rows: Rows, samples: Array) -> Fitted:
        """Fit to all rows, of which some first decide; samples: (R,) whose rows are held out or not together.

        The ridge errs least on every fourth sample after a fit to the others; where no fit errs less there than the
        layer as it was cut, that stays. Rows that are not finite are left out.
        """
        finite = np.isfinite(rows.X.sum(1)) & np.isfinite(rows.Z.sum(1)) & np.isfinite(rows.offset.sum(1))
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
        refit, left = LayerFit(start, None, self.biased, self.rounds)(units, samples)
        return Fitted(Refit(refit.weight * (x / z), refit.bias / z), left) if left is None else Fitted(self.start, left)

    def _fit(self, rows: Rows, held_out: Array) -> Fitted:
        if not held_out.any():  # two or three samples
            held_out = np.arange(len(rows)) >= len(rows) - max(len(rows) // _HELD_OUT, 1)
        moments = self._counted(rows.at(~held_out)) if not held_out.all() else None
        ridge = None if moments is None else self._ridge(moments, rows.at(held_out))
        if moments is None or ridge is None:
            return Fitted(self.start, "on held-out samples a fit was no better than the layer as it was cut")
        self._count(moments, rows.at(held_out))
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
        assert self.activation is not None
        wanted = self.activation(rows.Z)
        best, least = self.start, self._behind(_outputs(rows, self.start), wanted)
        for _ in range(self.rounds + 1):
            now = _outputs(rows, refit)
            error = self._behind(now, wanted)
            if error > (1 - _ENOUGH) * least and best is not self.start:
                return refit if error < least else best
            if error < least:
                best, least = refit, error
            else:
                now = _outputs(rows, best)
            targets = self.activation.target(now, rows.Z) - rows.offset
            refit = self._solved(moments.retargeted(_blocks(rows.X, targets)), ridge)
        return best

    def _behind(self, now: Array, wanted: Array) -> float:
        assert self.activation is not None
        return float(np.square(self.activation(now) - wanted).sum(dtype=np.float64))

    def _solved(self, moments: NormalEquations, ridge: float) -> Refit:
        bias = None if self.biased else self.start.bias
        W = self.start.weight
        return moments.centred(W, bias=bias) if math.isinf(ridge) else moments.solve(W, ridge, bias=bias)

    def _counted(self, rows: Rows) -> NormalEquations:
        moments = NormalEquations(rows.X.shape[1], rows.Z.shape[1])
        self._count(moments, rows)
        return moments

    def _count(self, moments: NormalEquations, rows: Rows) -> None:
        for X, Y in _blocks(rows.X, rows.Z - rows.offset):
            moments.add(X, Y)

    def _error(self, rows: Rows, refit: Refit) -> float:
        """Mean of |z - z'|^2 over the rows; infinite where it is not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            error = float(np.square((_outputs(rows, refit) - rows.Z).astype(np.float64)).mean())
        return error if math.isfinite(error) else math.inf


def _outputs(rows: Rows, refit: Refit) -> Array:
    W = refit.weight.reshape(len(refit.bias), -1).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return rows.X @ W.T + (refit.bias.astype(np.float32) + rows.offset)


def _blocks(X: Array, Y: Array) -> Sequence[tuple[Array, Array]]:
    return [(X[at : at + _BLOCK], Y[at : at + _BLOCK]) for at in range(0, len(X), _BLOCK)]
