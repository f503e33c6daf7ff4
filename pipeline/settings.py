"""How a run decides: what was asked for, as one value, and what follows from it where nothing was said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..passes.errors import UsageError
from ..passes.needs import OF_DATA, OF_MOMENTS, Need, needs_of, unmet
from ..passes.selection.criteria import make_criterion
from ..passes.selection.frames import Align
from ..passes.selection.methods import Amc, Method, make_method
from ..passes.selection.presets import PRESETS, Preset, make_preset
from ..passes.selection.ranking import Criterion
from ..passes.selection.refits import refit_kind, refit_needs
from ..passes.selection.words import word
from ..runtime.data.given import DataSource, repeatable
from ..runtime.data.preprocess import Preprocessing
from ..runtime.device import Device
from ..runtime.effort import NORMAL, make_effort

NONE, SYNTHETIC = "none", "synthetic"  # instead of calibration data
SYNTHETIC_IF_IMAGES = "synthetic, if the model reads images"

# What a preset, or else what there is to look at, implies where nothing is said: the whole table.
IMPLIED: Mapping[str, Preset] = {
    "data": Preset("obs", "sensitivity", "sequential", align="auto"),
    "moments": Preset("obs", "error", "full", align="auto"),
    "weights": Preset("l2", "uniform", "none", align="auto"),
    **PRESETS,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `prune` was asked for; every field is a flag of the command line. None: as IMPLIED says.

    preset: a strategy of a paper (a name of `presets.PRESETS`); also says which groups stay where `exclude` does not
    criterion: which channels go (a name of `criteria()` or a Criterion)
    allocation: how many each group keeps (a name of `METHODS` or a Method)
    reconstruct: how what stays is refitted (one of `one_shot.KINDS`; `blocks` and `distill` may have options)
    calibration: images or arrays, see `runtime.data.open.open_data`, or "synthetic", or "none". None: synthetic images
        for small models that read images, but none where moments are given, nor where the criterion is named and
        nothing that is named looks at more than weights
    samples: as many of the calibration data are used at most
    preprocessing: of images
    moments: a file that `save_moments` wrote, instead of data
    save_moments: where measured moments are kept
    align: kept counts are multiples of it; "auto": of what the hardware likes (`frames.menus`)
    exclude: a regular expression of the names of groups that stay
    keep_blocks: whether every group keeps a unit, so that no block or branch goes entirely
    replace_head: "gap" swaps fully connected layers at the end for global average pooling and one linear layer
    inexact: whether LayerNorm and the like lose channels
    effort: how much is computed with data (a name of `effort.EFFORTS`)
    seed: of all that is drawn
    device: where models run
    measure: whether latency is measured
    threads: of one operator while it is; one disturbs least and is disturbed least. None: all cores
    latency_batch: samples in a run while it is
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
    keep_blocks: bool = False
    replace_head: str | None = None
    inexact: bool = False
    effort: str = NORMAL
    seed: int = 0
    device: Device = "auto"
    measure: bool = True
    threads: int | None = 1
    latency_batch: int = 1

    @property
    def synthetic(self) -> bool:
        """Whether images are drawn instead of given."""
        return isinstance(self.calibration, str) and self.calibration in (SYNTHETIC, SYNTHETIC_IF_IMAGES)

    @property
    def given(self) -> DataSource | None:
        """The calibration data that are given, if there are any."""
        word = isinstance(self.calibration, str) and self.calibration == NONE
        return None if word or self.synthetic else self.calibration


@dataclass(frozen=True, slots=True)
class Strategy:
    """What a run decides by, with nothing left unsaid."""

    criterion: Criterion
    allocation: Method
    reconstruct: str
    align: Align

    @property
    def ends(self) -> bool:
        """Whether there is a least that is come to without a budget: by the allocation, or by the criterion."""
        return self.allocation.ends or getattr(self.criterion, "ends", False)

    def needs(self) -> Mapping[tuple[str, str], frozenset[Need]]:
        """(flag, word) -> what this part of the strategy needs."""
        return {
            ("--criterion", word(self.criterion)): needs_of(self.criterion),
            ("--allocation", word(self.allocation)): needs_of(self.allocation),
            ("--reconstruct", self.reconstruct): refit_needs(self.reconstruct),
        }

    def may_use(self, some: frozenset[Need]) -> bool:
        """Whether one of these is needed, or may be: a criterion that declares nothing may look at all there is."""
        return not hasattr(self.criterion, "needs") or any(some & needs for needs in self.needs().values())


def make_settings(asked: Settings) -> Settings:
    """What is asked for, checked, with the calibration data that it implies. Raises UsageError."""
    _check(asked)
    given = _implied_calibration(asked) if asked.calibration is None else repeatable(asked.calibration)
    return replace(asked, calibration=given)


def make_strategy(settings: Settings, *, data: bool) -> Strategy:
    """What is in force; data: whether there are calibration data. Raises UsageError where a need cannot be met."""
    row = IMPLIED[settings.preset or ("data" if data else "moments" if settings.moments is not None else "weights")]
    strategy = Strategy(
        criterion=make_criterion(settings.criterion or row.criterion),
        allocation=make_method(settings.allocation or row.allocation),
        reconstruct=settings.reconstruct or row.reconstruct,
        align=row.align if settings.align == "auto" else settings.align,
    )
    missing = OF_DATA if settings.moments is None else OF_DATA - OF_MOMENTS
    for (flag, name), needs in strategy.needs().items():
        for need in sorted(needs & missing if not data else ()):
            raise unmet(need, f"'{name}'", flag)
    return strategy


def held_out(settings: Settings, least: int) -> int:
    """Samples that nothing is fitted to, for the result to be judged on: as many as the allocation asks for."""
    preset = None if settings.preset is None else IMPLIED[settings.preset]
    allocation = settings.allocation or (preset and preset.allocation)
    chosen = None if allocation is None else make_method(allocation)
    return max(least, chosen.images) if isinstance(chosen, Amc) else least


def _implied_calibration(settings: Settings) -> str:
    """Synthetic images, but for moments, and where a criterion is named and all that is named is content with weights.

    Who names a criterion of weights alone gets its answer in seconds, and is told that nothing was refitted.
    """
    preset = None if settings.preset is None else IMPLIED[settings.preset]
    criterion = settings.criterion or (preset and preset.criterion)
    if settings.moments is not None:
        return NONE
    if criterion is None:
        return SYNTHETIC_IF_IMAGES
    allocation = settings.allocation or (preset and preset.allocation)
    refit = settings.reconstruct or (preset and preset.reconstruct) or "none"
    needs = needs_of(make_criterion(criterion)) | refit_needs(refit)
    if allocation is not None:
        needs |= needs_of(make_method(allocation))
    return SYNTHETIC_IF_IMAGES if needs & OF_DATA else NONE


def _check(settings: Settings) -> None:
    if settings.preset is not None:
        make_preset(settings.preset)
    make_effort(settings.effort)
    if settings.reconstruct is not None:
        refit_kind(settings.reconstruct)
    if settings.replace_head not in (None, "gap"):
        raise UsageError(f"there is no '{settings.replace_head}'", where="--replace-head", fix="choose from gap")
