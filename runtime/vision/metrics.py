"""Metrics of segmentation and detection by their words, with their data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ...passes.errors import UsageError
from ...passes.selection.words import choose
from ..data.functions import names_function
from ..data.given import source_words
from ..data.inputs import ModelInput, model_inputs
from ..data.open import open_data
from ..data.preprocess import Preprocessing
from ..device import Device
from ..progress import Stage, counted
from .boxes import box_batches
from .masks import mask_batches
from .mean_ap import Map, Map50, require_pycocotools
from .miou import Miou

VISION: dict[str, type[Miou | Map]] = {"miou": Miou, "map": Map, "map50": Map50}


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images with masks or boxes: where they are, so many of them (all by default), prepared so."""

    source: object
    samples: int | None = None
    preprocessing: Preprocessing | None = None
    seed: int = 0


def vision_metric(
    word: str, original: onnx.ModelProto, pictures: Pictures, device: Device, progress: Stage
) -> Callable[[onnx.ModelProto], float]:
    """The number of a model. The data are opened at once, and a first batch is read: what cannot be, is said now.

    Raises UsageError or ReadError; also, once the original is measured, where it is right about nothing: then the
    decoder, the classes or the preprocessing are not those of the model.
    """
    chosen = choose(VISION, word, "--metric")
    wanted = _image_input(original)
    run = _segmentation(chosen, wanted, pictures) if isinstance(chosen, Miou) else _detection(chosen, wanted, pictures)
    tell = counted(progress, "evaluating", "samples", pictures.samples)

    def number(model: onnx.ModelProto) -> float:
        value = run(model, device, tell)
        if value == 0 and model is original:
            raise UsageError(
                f"the original scores 0 by --metric {word}",
                where=source_words(pictures.source),
                fix="check --mean, --std and --resize, and the options first=, ids and decoder= of the metric",
            )
        return value

    return number


def _image_input(model: onnx.ModelProto) -> ModelInput:
    inputs = model_inputs(model)
    if len(inputs) != 1:
        raise UsageError(
            f"images feed one input, and the model has {len(inputs)}", where="--metric", fix="give a metric of your own"
        )
    return inputs[0]


Run = Callable[[onnx.ModelProto, Device, Any], float]


def _segmentation(chosen: Miou, wanted: ModelInput, pictures: Pictures) -> Run:
    if _is_folder(pictures.source):
        data, layout = mask_batches(_path(pictures), wanted, pictures.preprocessing, pictures.samples, pictures.seed)
        _first(data)
        return lambda model, device, tell: chosen.of(model, data, layout, device, tell)
    arrays = open_data(pictures.source, [wanted], None, samples=pictures.samples, seed=pictures.seed, targets=True)
    if not arrays.labelled:
        raise UsageError(
            "there are no masks", where="the data given", fix="give them as `label`: (samples, height, width)"
        )
    layout = "NHWC" if (wanted.dims or ())[3:] in ((1,), (3,)) else "NCHW"
    return lambda model, device, tell: chosen.of(model, arrays, layout, device, tell)


def _detection(chosen: Map, wanted: ModelInput, pictures: Pictures) -> Run:
    require_pycocotools()
    boxed = box_batches(_path(pictures), wanted, pictures.preprocessing, pictures.samples, pictures.seed)
    _first(boxed.data)
    return lambda model, device, tell: chosen.of(model, boxed.data, boxed.ids, device, tell)


def _is_folder(source: object) -> bool:
    """Whether it is a path of images, not of arrays."""
    named = isinstance(source, str) and names_function(source)
    return isinstance(source, str | os.PathLike) and not named and Path(source).suffix.lower() not in (".npz", ".npy")


def _path(pictures: Pictures) -> Path:
    if not _is_folder(pictures.source):
        raise UsageError(
            "boxes are read from files", where="evaluate=", fix="give a folder, or a metric of your own for other data"
        )
    return Path(str(pictures.source))


def _first(data: Iterable[object]) -> None:
    next(iter(data), None)
