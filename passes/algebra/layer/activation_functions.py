"""What a fit in front of an activation is to reach: the values that matter behind it, not those in front.

A fit of z' to z makes E|z - z'|^2 small, and what counts is E|a(z) - a(z')|^2. Least squares with other targets t, made
anew from what the last fit gives, does that:

- where a is flat (ReLU, Clip, HardSigmoid), t is the point nearest to z' that a takes to a(z): what the original has
  below zero may be anything below zero;
- else t = z' + m (z - z'), where m in [0, 1] is the larger of a's slope at z and its secant between the two, as a share
  of its steepest slope: a minorising step for the matching loss of a (Auer, Herbster, Warmuth 1995), which is a full
  step where a is steep and none where it saturates. Where a falls (SiLU left of -1.28) m is 0, and z' stays.

The second is the first for ReLU. Jiang et al. 2018 and He et al. 2017, section 3.3, fit behind ReLU alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import erf, expit

Array = np.ndarray
_STEP = 1e-3  # of the difference quotient


class ActivationFunction(Protocol):
    """A function of numbers, one by one."""

    def __call__(self, z: Array) -> Array:
        """Its values, in units in which its steepest slope is 1; z: (rows, n)."""
        ...

    def target(self, now: Array, wanted: Array) -> Array:
        """What the next fit is to reach where the last gives `now` and the original has `wanted`; all (rows, n)."""
        ...


@dataclass(frozen=True, slots=True)
class Clipped:
    """The identity between two bounds, flat beyond them: ReLU is from 0 to infinity."""

    low: float = 0.0
    high: float = np.inf

    def __call__(self, z: Array) -> Array:
        return np.clip(z, self.low, self.high)

    def target(self, now: Array, wanted: Array) -> Array:
        if self.high == np.inf:
            return np.where(wanted > self.low, wanted, np.minimum(now, self.low))
        # both beyond the same bound: as it is; else the wanted value, or the bound behind which it lies
        return np.where(self(now) == self(wanted), now, self(wanted))


@dataclass(frozen=True, slots=True, eq=False)
class Smooth:
    """Any function; steepest: its largest slope."""

    function: Callable[[Array], Array]
    steepest: float = 1.0

    def __call__(self, z: Array) -> Array:
        return self.function(z) / self.steepest

    def target(self, now: Array, wanted: Array) -> Array:
        slope = (self(wanted + _STEP) - self(wanted - _STEP)) / (2 * _STEP)
        difference = wanted - now
        near = np.abs(difference) < _STEP
        secant = (self(wanted) - self(now)) / np.where(near, 1, difference)
        weight = np.clip(np.maximum(slope, np.where(near, slope, secant)), 0, 1)
        return now + weight * difference


def leaky(slope: Array | float) -> Smooth:
    """Z above zero, slope * z below; slope: one number, or one a channel."""
    steepest = max(1.0, float(np.abs(slope).max(initial=0)))
    return Smooth(lambda z: np.where(z > 0, z, np.asarray(slope, z.dtype) * z), steepest)


def elu(alpha: float = 1.0, gamma: float = 1.0, width: float = 1.0) -> Smooth:
    """Gamma * z above zero, gamma * alpha * (exp(z / width) - 1) below."""
    below = gamma * alpha
    return Smooth(
        lambda z: np.where(z > 0, gamma * z, below * np.expm1(np.minimum(z, 0) / width)), max(gamma, below / width)
    )


def gated(gate: Callable[[Array], Array]) -> Smooth:
    """The product z * gate(z), as SiLU, HardSwish and GELU are."""
    z = np.linspace(-10, 10, 2001)
    return Smooth(lambda z: z * gate(z), float(np.gradient(z * gate(z), z).max()))


def sigmoid(factor: float = 1.0) -> Callable[[Array], Array]:
    """1 / (1 + exp(-factor z))."""
    return lambda z: expit(factor * z)


def hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Callable[[Array], Array]:
    """Alpha z + beta within [0, 1]."""
    return lambda z: np.clip(alpha * z + beta, 0, 1)


def normal_distribution(z: Array) -> Array:
    """The share of a standard normal distribution below z."""
    return (1 + erf(z / np.sqrt(2))) / 2
