"""Accuracy for the command line, and the numbers in its flags."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import onnx

from ..passes.errors import UsageError
from ..passes.graph.model import load
from ..runtime.data.inputs import model_inputs
from ..runtime.data.open import Data, open_data
from ..runtime.data.preprocess import Preprocessing
from ..runtime.device import Device
from ..runtime.measure.evaluate import accuracy

Number = TypeVar("Number", int, float)


Top1 = tuple[float, float]  # before and after


def top1_of(
    models: tuple[Path | onnx.ModelProto, Path | onnx.ModelProto],
    source: str,
    preprocessing: Preprocessing | None,
    device: Device = "auto",
) -> Top1:
    """Share of the samples whose class is the highest output, of the original and of the result."""
    before, after = (load(model).source for model in models)
    first, second = (accuracy(m, _open(m, source, preprocessing), device=device).top1 for m in (before, after))
    return first, second


def has_labels(model: onnx.ModelProto, source: str, preprocessing: Preprocessing | None) -> bool:
    """Whether accuracy can be measured on these data."""
    return _open(model, source, preprocessing).labelled


def _open(model: onnx.ModelProto, source: str, preprocessing: Preprocessing | None) -> Data:
    return open_data(source, model_inputs(model), preprocessing)


def shares(text: str, flag: str) -> tuple[float, ...]:
    """Shares with commas between them, 10%,50% or 0.1,0.5, in order. Raises UsageError."""
    parts = [(part.strip().removesuffix("%"), part.strip().endswith("%")) for part in text.split(",")]
    found = numbers(",".join(part for part, _ in parts), flag, float)
    return tuple(sorted({n / 100 if percent else n for n, (_, percent) in zip(found, parts, strict=True)}))


def numbers(text: str, flag: str, kind: type[Number]) -> tuple[Number, ...]:
    """Numbers with commas between them. Raises UsageError."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError("these are not numbers", where=f"{flag} {text}", fix="for example 0.5,0.5,0.5") from None
