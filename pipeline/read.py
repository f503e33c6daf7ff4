"""Reading what a run is made from: the model with its channels labelled, and data."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from ..passes.channels.groups import ChannelGroups
from ..passes.errors import UsageError
from ..passes.graph.model import Graph, ModelLike, load
from ..passes.rewrite.place import with_placers
from ..passes.rewrite.sample import with_samplers
from ..passes.selection.presets import Extra, make_preset
from ..runtime.analysis import Analysis, analyse, least_leading
from ..runtime.data.expected import doubt
from ..runtime.data.inputs import model_inputs, numeric_inputs
from ..runtime.data.open import Data, example_input, open_data
from ..runtime.data.random_feeds import Feeds
from ..runtime.data.synthetic import reads_images, synthetic_data
from ..runtime.latency.batched import timed_feeds
from ..runtime.progress import Stage
from ..runtime.proof.source import check_read
from ..runtime.reduced import lighter
from ..runtime.soundness import check_opens, check_provable, check_weights
from .decide import untouched
from .run import Run
from .settings import SYNTHETIC, SYNTHETIC_IF_IMAGES, Settings, held_out, make_strategy

_SYNTHETIC_MACS = 64 << 30  # of one pass over the images: 512 for ResNet-56; by default for networks up to 1 G MACs
_SYNTHETIC_IMAGES = (64, 512)
_SYNTHETIC_PIXELS = (
    1 << 23
)  # of all images: 512 of 240x320 took 10 s to draw and 500 MB; they have rows enough in fewer
JUDGED = 64  # samples
_WITH: dict[Extra, Callable[[ChannelGroups], onnx.ModelProto]] = {"samplers": with_samplers, "placers": with_placers}


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
    extra = None if settings.preset is None else make_preset(settings.preset).extra
    analysis = _analysed(model, graph, settings, sizes, example, extra=extra)
    untouched(analysis.groups, settings)  # what matches nothing is said before the work
    macs = analysis.cost.macs(analysis.cost.units)
    unlike = None if data is None else doubt(analysis.graph, data, settings.device, macs)
    data = data or _synthetic_data(analysis, settings)
    strategy = make_strategy(settings, data=data is not None)
    return Run(analysis, settings, strategy, progress, start, data, graph.source if extra else None, extra, unlike)


def read_alone(model: ModelLike, settings: Settings, progress: Stage, *, extra: Extra | None = None) -> Run:
    """Label the channels of the model, without any data. extra: once it has got these."""
    start = time.perf_counter()
    progress("reading the model")
    graph = load(model)
    check_opens(graph, settings.device)
    analysis = _analysed(model, graph, settings, extra=extra)
    strategy = make_strategy(settings, data=False)
    return Run(analysis, settings, strategy, progress, start, plain=graph.source if extra else None, extra=extra)


def _analysed(
    model: ModelLike,
    graph: Graph,
    settings: Settings,
    sizes: Mapping[str, int] | None = None,
    example: Feeds | None = None,
    *,
    extra: Extra | None = None,
) -> Analysis:
    """The analysis under the file's name, or that of the graph.

    Raises ReadError where a weight is not finite, ProofError where what was read is not what the model says.
    """

    def analysed(model: ModelLike) -> Analysis:
        return analyse(
            model, sizes=sizes, example=example, device=settings.device, seed=settings.seed, inexact=settings.inexact
        )

    analysis = analysed(graph)
    if extra is not None:
        _check_stored(graph, extra)
        analysis = analysed(_WITH[extra](analysis.groups))
    check_weights(analysis.groups)
    if example is None:
        check_provable(analysis.groups)
        macs, facts = analysis.cost.macs(analysis.cost.units), analysis.groups.labelled.facts
        trial = lighter(analysis.graph.source, facts, macs, analysis.feeds, settings.device)
        analysis = replace(analysis, trial=trial)
    timed_feeds(analysis, settings.latency_batch)  # whether the model takes such a batch is known before the work
    check_read(analysis.groups, analysis.trial, settings.device)
    name = Path(model).name if isinstance(model, str | os.PathLike) else graph.source.graph.name
    return replace(analysis, name=name)


def _check_stored(graph: Graph, extra: Extra) -> None:
    if graph.external:
        preset, criterion = ("channel-pruning", "lasso") if extra == "samplers" else ("sfp", "l2")
        raise UsageError(
            f"a model whose weights lie in files of their own gets no channel {extra}",
            where=f"--preset {preset}",
            fix=f"store the weights in the model, or take --criterion {criterion}",
        )


def _given_data(graph: Graph, settings: Settings) -> Data | None:
    if settings.given is None:
        return None
    inputs = model_inputs(graph.source)
    many = least_leading(graph, settings.device, settings.seed)
    if many > 1:
        inputs = tuple(replace(i, dims=(many, *i.dims[1:])) if i.dims and i.dims[0] is None else i for i in inputs)
    how, aside = settings.preprocessing, held_out(settings, JUDGED)
    return open_data(settings.given, inputs, how, samples=settings.samples, seed=settings.seed, held_out=aside)


def _example(graph: Graph, settings: Settings) -> Feeds | None:
    """What is given as calibration data, where it is one input for one run: the model is read for it, no more."""
    if settings.given is None:
        return None
    return example_input(settings.given, model_inputs(graph.source))


def _pixels(images: np.ndarray) -> int:
    """Of one of these images, whichever axis its channels are."""
    return math.prod(images.shape[1:]) // min(images.shape[1], images.shape[3])


def _synthetic_data(analysis: Analysis, settings: Settings) -> Data | None:
    """Synthetic images, where they are asked for, or nothing is and a run over the fewest is cheap.

    As many as cost about as much to run, and to draw, as 512 small ones. Raises UsageError where they are asked for and
    the model does not read images.
    """
    if not settings.synthetic:
        return None
    macs = analysis.cost.macs(analysis.cost.units)
    if settings.calibration == SYNTHETIC_IF_IMAGES and macs * _SYNTHETIC_IMAGES[0] > _SYNTHETIC_MACS:
        return None  # minutes, where a command that says nothing of data is expected to take seconds
    inputs = numeric_inputs(analysis.graph.source)
    if reads_images(inputs, analysis.feeds):
        affords = min(_SYNTHETIC_MACS // max(macs, 1), _SYNTHETIC_PIXELS // _pixels(analysis.feeds[inputs[0].name]))
        samples = min(settings.samples, int(np.clip(affords, *_SYNTHETIC_IMAGES)))
        return synthetic_data(
            inputs, analysis.feeds, settings.preprocessing, samples, settings.seed, held_out(settings, JUDGED)
        )
    if settings.calibration == SYNTHETIC:
        raise UsageError(
            "the model does not read images", where="--calibration synthetic", fix="give data, or --calibration none"
        )
    return None
