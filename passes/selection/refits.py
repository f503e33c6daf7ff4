"""The refits by their words, each with what it needs, and the options of the one that trains."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..needs import Need
from ..rewrite.one_shot import KINDS
from .words import choose

DISTILL = "distill"
SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True)
class Distill:
    """`sequential`, then gradient steps on all weights towards the original's outputs, on the same samples.

    epochs: passes over the calibration samples
    rate: the highest learning rate
    """

    epochs: int = 60
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
    if word not in KINDS and name != DISTILL:
        raise UsageError(f"there is no '{word}'", where="--reconstruct", fix=f"choose from {', '.join(KINDS)}")
    distill_of(word)
    return name


def distill_of(word: str) -> Distill | None:
    """What is distilled how, None where nothing is. Raises UsageError for options that there are not."""
    return choose({DISTILL: Distill}, word, "--reconstruct") if word.partition(":")[0] == DISTILL else None


def refit_needs(word: str) -> frozenset[Need]:
    """What the refit of that word looks at."""
    return KINDS[refit_kind(word)]
