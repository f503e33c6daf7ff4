"""One run as a value: what was read of model and data, and what it is decided by."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ..passes.selection.presets import Extra
from ..runtime.analysis import Analysis
from ..runtime.data.open import Data
from ..runtime.progress import Stage
from .settings import Settings, Strategy


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what was read, and how it is to go.

    settings: as they were given
    strategy: what is in force
    start: when it began, seconds of time.perf_counter
    data: what channels are chosen and refitted on; None for the weights alone
    plain: the model that was given, where samplers or placers were put into the one that is analysed
    extra: which of them were
    doubt: why the data are most likely not prepared as in training
    """

    analysis: Analysis
    settings: Settings
    strategy: Strategy
    progress: Stage
    start: float
    data: Data | None = None
    plain: onnx.ModelProto | None = None
    extra: Extra | None = None
    doubt: str | None = None

    @property
    def judged_on(self) -> Data | None:
        """What the result is compared with the original on: samples that nothing was fitted to, where there are any."""
        return None if self.data is None else self.data.held_out or self.data

    @property
    def original(self) -> onnx.ModelProto:
        """The model that was given."""
        return self.analysis.graph.source if self.plain is None else self.plain

    @property
    def data_in_words(self) -> str | None:
        """What channels are chosen and refitted on; None for the weights alone."""
        if self.data is None:
            return None if self.settings.moments is None else "moments"
        broken = self.data.broken()
        but = f" (unreadable or far beyond the others, and left out: {broken})" if broken else ""
        return f"{self.data.samples or 'given'} {'synthetic images' if self.settings.synthetic else 'samples'}{but}"
