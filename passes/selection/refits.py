"""The refits by their words, each with what it needs, and the options of the one that trains."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..needs import Need
from ..rewrite.one_shot import KINDS
from .words import choose

SEQUENTIAL, BLOCKS, DISTILL = "sequential", "blocks", "distill"  # each begins with the one before


@dataclass(frozen=True, slots=True)
class Blocks:
    """`sequential`, then gradient steps on a few layers at a time towards what the original has behind them.

    layers: that are fitted together, at least
    epochs: passes over the calibration samples
    rate: the highest learning rate
    """

    layers: int = 6
    epochs: int = 8
    rate: float = 2e-3

    def __post_init__(self) -> None:
        if self.layers < 1 or self.epochs < 1 or self.rate <= 0:
            raise UsageError(
                f"{self.layers} layers for {self.epochs} epochs at a rate of {self.rate:g}",
                where="--reconstruct blocks",
                fix="give layers and epochs from 1 on, and a rate above 0",
            )


@dataclass(frozen=True, slots=True)
class Distill:
    """`blocks`, then gradient steps on all weights towards the original's outputs, on the same samples.

    epochs: passes over the calibration samples
    rate: the highest learning rate
    """

    epochs: int = 24
    rate: float = 2e-4

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.rate <= 0:
            raise UsageError(
                f"{self.epochs} epochs at a rate of {self.rate:g}",
                where="--reconstruct distill",
                fix="give epochs from 1 on, and a rate above 0",
            )


def refit_kind(word: str) -> str:
    """The word without its options. Raises UsageError where there is no such refit, or no such option."""
    name = word.partition(":")[0]
    if word not in KINDS and name not in (BLOCKS, DISTILL):
        raise UsageError(f"there is no '{word}'", where="--reconstruct", fix=f"choose from {', '.join(KINDS)}")
    blocks_of(word)
    distill_of(word)
    return name


def blocks_of(word: str) -> Blocks | None:
    """How layers are fitted together, None where they are not. Raises UsageError for options that there are not."""
    name = word.partition(":")[0]
    if name == DISTILL:
        return Blocks()
    return choose({BLOCKS: Blocks}, word, "--reconstruct") if name == BLOCKS else None


def distill_of(word: str) -> Distill | None:
    """What is distilled how, None where nothing is. Raises UsageError for options that there are not."""
    return choose({DISTILL: Distill}, word, "--reconstruct") if word.partition(":")[0] == DISTILL else None


def refit_needs(word: str) -> frozenset[Need]:
    """What the refit of that word looks at."""
    return KINDS[refit_kind(word)]
