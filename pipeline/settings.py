"""How a run decides: the flags of the command line as one value."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ..passes.errors import UsageError
from ..passes.selection.allocate import Align
from ..passes.selection.methods import Method
from ..passes.selection.presets import default_preset, make_preset
from ..passes.selection.ranking import Criterion
from ..runtime.data.open import DataSource
from ..runtime.data.preprocess import Preprocessing
from ..runtime.session import Device

NONE, SYNTHETIC = "none", "synthetic"  # instead of calibration data
SYNTHETIC_IF_IMAGES = "synthetic, if the model reads images"


@dataclass(frozen=True, slots=True)
class Settings:
    """How `prune` decides; every field is a flag of the command line. None: what suits the data that are given.

    preset: a strategy of a paper (a name of `presets.PRESETS`), which says what is not said here, and which groups stay
    where `exclude` is not given;
    criterion: which channels go (a name of `criteria()` or a Criterion): obs with calibration data, else l2;
    allocation: how many each group keeps: sensitivity with data, error with moments alone, else uniform;
    reconstruct: how what stays is refitted: sequential with data, full with moments alone, else none;
    calibration: images or arrays, see `runtime.data.open_data`, or "synthetic" or "none"; where nothing above and no
    moments are given either, small models that read images get synthetic ones; samples: so many are used at most;
    preprocessing: of images; moments: a file that `save_moments` wrote, instead of data;
    align: kept counts are multiples of it; "auto": of what the hardware likes (`allocate.menus`);
    exclude: a regular expression of group
    names that stay; replace_head: "gap" swaps fully connected layers at the end for global average pooling and one
    linear layer, after the cut; inexact: whether LayerNorm and the like lose channels; seed: of all that is drawn;
    device: where models run; measure: whether latency is measured;
    threads: of one operator while it is: one disturbs least and is disturbed least; None: all cores.
    """

    preset: str | None = None
    criterion: str | Criterion | None = None
    allocation: str | Method | None = None
    reconstruct: str | None = None
    calibration: DataSource | None = None
    samples: int = 1024
    preprocessing: Preprocessing | None = None
    moments: str | os.PathLike[str] | None = None
    save_moments: str | os.PathLike[str] | None = None
    align: Align = "auto"
    exclude: str | None = None
    replace_head: str | None = None
    inexact: bool = False
    seed: int = 0
    device: Device = "auto"
    measure: bool = True
    threads: int | None = 1


def make_settings(chosen: Settings) -> Settings:
    """What is given, checked; the rest is decided when the model is read, see `filled`. Raises UsageError."""
    _check(chosen)
    said = (chosen.preset, chosen.criterion, chosen.allocation, chosen.reconstruct, chosen.moments, chosen.calibration)
    return replace(chosen, calibration=SYNTHETIC_IF_IMAGES) if said == (None,) * len(said) else chosen


def _check(settings: Settings) -> None:
    if settings.replace_head not in (None, "gap"):
        raise UsageError(f"there is no '{settings.replace_head}'", where="--replace-head", fix="choose gap")
    for name, least in (("samples", 1), ("seed", 0), ("threads", 1)):
        value = getattr(settings, name)
        if name == "threads" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(
                f"{value!r} is not a whole number from {least} on", where=f"--{name}", fix=f"for example {least + 64}"
            )
    for name in ("preset", "reconstruct", "exclude"):
        value = getattr(settings, name)
        if not isinstance(value, str | None):
            raise UsageError(f"a {type(value).__name__} is not a text", where=f"--{name}", fix="give a str, or None")
    criterion = settings.criterion
    if not isinstance(criterion, str | None) and not hasattr(criterion, "rank"):
        raise UsageError(
            f"a {type(criterion).__name__} is not a criterion",
            where="--criterion",
            fix="give a word such as 'obs', or an object with a method rank (docs/methods.md)",
        )


def filled(settings: Settings, *, data: bool) -> Settings:
    """What is not said is decided by the preset, or by what there is: data, moments, or weights alone."""
    default = default_preset(data=data, moments=settings.moments is not None)
    preset = default if settings.preset is None else make_preset(settings.preset)
    return replace(
        settings,
        criterion=settings.criterion or preset.criterion,
        allocation=settings.allocation or preset.allocation,
        reconstruct=settings.reconstruct or preset.reconstruct,
        # a paper's strategy means its own widths
        align=1 if settings.preset is not None and settings.align == "auto" else settings.align,
    )
