"""What a run is made from: the model with its channels labelled, data, and the moments that are measured on them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..passes.algebra.moments import MomentsSet, load_moments
from ..passes.errors import UsageError
from ..passes.graph.model import Graph, ModelLike, load
from ..passes.selection.criteria import make_criterion
from ..passes.selection.criteria.activations.apoz import OfActivations
from ..runtime.analysis import Analysis, analyse
from ..runtime.data.inputs import model_inputs
from ..runtime.data.open import Data, example_input, open_data
from ..runtime.data.random_feeds import Feeds
from ..runtime.data.synthetic import reads_images, synthetic_data
from ..runtime.measure.calibrate import Calibration, calibrate
from ..runtime.progress import Stage, counted
from ..runtime.soundness import check_opens, check_weights
from .decide import Decision, untouched
from .settings import NONE, SYNTHETIC, SYNTHETIC_IF_IMAGES, Settings, filled

_SYNTHETIC_MACS = 64 << 30  # of one pass over the images: 512 for ResNet-56; by default for networks up to 1 G MACs
_SYNTHETIC_IMAGES = (64, 512)
_JUDGED = 64  # samples


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what was read, and how it is to go.

    start: when it began, seconds of time.perf_counter
    judged_on: a few samples to compare the result with the original on: another draw than `data`, which may share
        samples with it
    """

    analysis: Analysis
    settings: Settings
    progress: Stage
    start: float
    data: Data | None = None
    judged_on: Data | None = None

    @property
    def decision(self) -> Decision:
        return Decision(self.analysis, self.settings, self.data, self.progress)

    def measure(self) -> MomentsSet | None:
        """Moments of all consumers: measured on the data, read from a file, or none."""
        settings, data = self.settings, self.data
        if settings.moments is not None:
            return load_moments(settings.moments, self.analysis.graph.sha256())
        if data is None:
            return None
        moments = calibrate(
            self.analysis.groups.labelled,
            data,
            how=Calibration(
                seed=settings.seed,
                device=settings.device,
                activations=isinstance(make_criterion(settings.criterion or "l2"), OfActivations),
            ),
            progress=counted(self.progress, "calibrating", "samples", of=data.samples),
        )
        if settings.save_moments is not None:
            moments.save(settings.save_moments)
        return moments

    @property
    def data_in_words(self) -> str | None:
        """What channels are chosen and refitted on; None for the weights alone."""
        if self.data is None:
            return None if self.settings.moments is None else "moments"
        synthetic = self.settings.calibration in (SYNTHETIC, SYNTHETIC_IF_IMAGES)
        broken = self.data.broken()
        but = f", {broken} of them unreadable and left out" if broken else ""
        return f"{self.data.samples or 'given'} {'synthetic images' if synthetic else 'samples'}{but}"


def read(model: ModelLike, settings: Settings, progress: Stage, sizes: Mapping[str, int] | None) -> Run:
    """Open the data and label the channels of the model, for inputs of their size."""
    start = time.perf_counter()
    progress("reading the model")
    graph = load(model)
    check_opens(graph, settings.device)
    example = _example(graph, settings)
    data = _given_data(graph, settings) if example is None else None
    if data is not None:
        example = data.example()
    analysis = _analysed(model, graph, settings, sizes, example)
    untouched(analysis.groups, settings)  # what matches nothing is said before the work
    other = replace(settings, seed=settings.seed + 1, samples=_JUDGED)
    if data is None:
        data = _synthetic_data(analysis, settings)
        judged_on = None if data is None else _synthetic_data(analysis, other)
    else:
        judged_on = _given_data(graph, other)
    return Run(analysis, filled(settings, data=data is not None), progress, start, data, judged_on)


def read_alone(model: ModelLike, settings: Settings, progress: Stage) -> Run:
    """Label the channels of the model, without any data."""
    start = time.perf_counter()
    progress("reading the model")
    graph = load(model)
    check_opens(graph, settings.device)
    return Run(_analysed(model, graph, settings), settings, progress, start)


def _analysed(
    model: ModelLike,
    graph: Graph,
    settings: Settings,
    sizes: Mapping[str, int] | None = None,
    example: Feeds | None = None,
) -> Analysis:
    """The analysis under the file's name, or that of the graph. Raises ReadError where a weight is not finite."""
    analysis = analyse(
        graph, sizes=sizes, example=example, device=settings.device, seed=settings.seed, inexact=settings.inexact
    )
    check_weights(analysis.groups)
    name = Path(model).name if isinstance(model, str | os.PathLike) else graph.source.graph.name
    return replace(analysis, name=name)


def _given_data(graph: Graph, settings: Settings) -> Data | None:
    source = settings.calibration
    if source is None or source in (NONE, SYNTHETIC, SYNTHETIC_IF_IMAGES):
        return None
    inputs = model_inputs(graph.source)
    return open_data(source, inputs, settings.preprocessing, samples=settings.samples, seed=settings.seed)


def _example(graph: Graph, settings: Settings) -> Feeds | None:
    """What is given as calibration data, where it is one input for one run: the model is read for it, no more."""
    source = settings.calibration
    if source is None or source in (NONE, SYNTHETIC, SYNTHETIC_IF_IMAGES):
        return None
    return example_input(source, model_inputs(graph.source))


def _synthetic_data(analysis: Analysis, settings: Settings) -> Data | None:
    """Synthetic images, where they are asked for, or nothing is and a run over the fewest is cheap.

    As many as cost about as much to run as 512 small ones. Raises UsageError where they are asked for and the model
    does not read images.
    """
    if settings.calibration not in (SYNTHETIC, SYNTHETIC_IF_IMAGES):
        return None
    macs = analysis.cost.macs(analysis.cost.units)
    if settings.calibration == SYNTHETIC_IF_IMAGES and macs * _SYNTHETIC_IMAGES[0] > _SYNTHETIC_MACS:
        return None  # minutes, where a command that says nothing of data is expected to take seconds
    inputs = model_inputs(analysis.graph.source)
    if reads_images(inputs, analysis.feeds):
        samples = min(settings.samples, int(np.clip(_SYNTHETIC_MACS // max(macs, 1), *_SYNTHETIC_IMAGES)))
        return synthetic_data(inputs, analysis.feeds, settings.preprocessing, samples, settings.seed)
    if settings.calibration == SYNTHETIC:
        raise UsageError(
            "the model does not read images", where="--calibration synthetic", fix="give data, or --calibration none"
        )
    return None
