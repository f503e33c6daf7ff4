"""How a run decides: the flags of the command line as one value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..passes.errors import UsageError
from ..passes.ranking import Criterion
from ..passes.schedules import Method
from .data import Source
from .preprocess import Preprocessing
from .session import Device


@dataclass(frozen=True, slots=True)
class Settings:
    """How `prune` decides; every field is a flag of the command line. None: what suits the data that are given.

    criterion: which channels go (a name of `criteria()` or a Criterion): obs with calibration data, else l2;
    allocation: how many each group keeps: sensitivity with data, error with moments alone, else uniform;
    reconstruct: how what stays is refitted: sequential with data, full with moments alone, else none;
    calibration: images or arrays, see `runtime.data.open_data`; samples: so many of them are used; preprocessing: of
    images; moments: a file that `save_moments` wrote, instead of data; align: kept counts are multiples of it; exclude:
    a regular expression of group names that stay; inexact: whether LayerNorm and the like lose channels; seed: of all
    that is drawn; device: where models run; measure: whether latency is measured.
    """

    criterion: str | Criterion | None = None
    allocation: str | Method | None = None
    reconstruct: str | None = None
    calibration: Source | None = None
    samples: int = 1024
    preprocessing: Preprocessing | None = None
    moments: str | os.PathLike[str] | None = None
    save_moments: str | os.PathLike[str] | None = None
    align: int = 1
    exclude: str | None = None
    inexact: bool = False
    seed: int = 0
    device: Device = "auto"
    measure: bool = True


def make_settings(given: Mapping[str, object]) -> Settings:
    """Raise UsageError for a name that is none."""
    unknown = set(given) - set(Settings.__dataclass_fields__)
    if unknown:
        raise UsageError(
            f"unknown setting: {', '.join(sorted(unknown))}", fix=f"one of {', '.join(Settings.__dataclass_fields__)}"
        )
    return Settings(**given)  # type: ignore[arg-type]
