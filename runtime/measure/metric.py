"""How good a model is, as one number of which more is better: built-in metrics and the user's own."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...passes.errors import UsageError
from ...passes.graph.files import save_model
from ...passes.graph.scratch import scratch_folder
from ..data.functions import failed, imported, is_theirs, names_function, users_code
from ..data.given import source_words
from ..data.inputs import model_inputs
from ..data.open import Data, DataSource, open_data
from ..data.preprocess import Preprocessing
from ..data.random_feeds import Feeds
from ..data.sources import Batch
from ..device import Device
from ..progress import Count, Stage, counted, silent
from ..session import open_session
from ..vision.metrics import VISION, Pictures, vision_metric
from .evaluate import accuracy, outputs

MetricLike = str | Callable[..., Any]
NAMES = ("top1", "top5", "agreement", *VISION)
_WORDS = {
    "top1": "top-1",
    "top5": "top-5",
    "agreement": "agreement with the original",
    "miou": "mean IoU",
    "map": "mAP",
    "map50": "mAP at 0.5",
}
_YOURS = "of the metric"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a metric is measured on: data, so many of their samples (all by default), prepared so, on that device."""

    source: DataSource | None
    samples: int | None = None
    preprocessing: Preprocessing | None = None
    seed: int = 0
    device: Device = "auto"

    def open(self, model: onnx.ModelProto, *, targets: bool = False) -> Data:
        """targets: labels may be anything, see `open_data`. Raises UsageError where there are no data."""
        return open_data(
            self._source(),
            model_inputs(model),
            self.preprocessing,
            samples=self.samples,
            seed=self.seed,
            targets=targets,
        )

    def pictures(self) -> Pictures:
        """The same as images with masks or boxes. Raises UsageError where there are no data."""
        return Pictures(self._source(), self.samples, self.preprocessing, self.seed)

    def _source(self) -> DataSource:
        if self.source is None:
            raise UsageError("a metric needs data", where="--metric", fix="give --evaluate")
        return self.source


@dataclass(frozen=True, slots=True)
class Metric:
    """A number for a model; more is better.

    name: its word, or module:function
    of: model -> number
    """

    name: str
    of: Callable[[onnx.ModelProto], float]


def title(name: str) -> str:
    """What a metric's number is, for people."""
    return _WORDS.get(_kind(name), name)


def metric_words(name: str, value: float) -> str:
    """A metric's number, for people: the built-in ones are shares."""
    return f"{value:.2%}" if _kind(name) in _WORDS else f"{value:.4g}"


def of_pictures(chosen: MetricLike | None) -> bool:
    """Whether a metric reads images with masks or boxes."""
    return isinstance(chosen, str) and _kind(chosen) in VISION


def _kind(name: str) -> str:
    """The word of a metric, without its options."""
    return name.partition(":")[0]


def make_metric(
    chosen: MetricLike | None, original: onnx.ModelProto, evaluation: Evaluation, progress: Stage = silent
) -> Metric:
    """The metric that is asked for; top-1 where the data have labels, else agreement with the original.

    chosen: one of NAMES, those of pictures with their options ("map:decoder=yolox"), "module:function", or a function:
    of (outputs, labels), {name: (samples, ...)} and what the data give, a row a sample, or None; or of the path of a
    model alone, which needs no data. Raises UsageError or ReadError, before anything runs, where there is
    no such metric, or the data cannot be read or have no labels.
    """
    if isinstance(chosen, str) and of_pictures(chosen):
        return Metric(chosen, vision_metric(chosen, original, evaluation.pictures(), evaluation.device, progress))
    function = chosen if callable(chosen) else None
    if isinstance(chosen, str) and names_function(chosen):
        function = imported(chosen, _YOURS)
    if function is not None:
        name = chosen if isinstance(chosen, str) else getattr(function, "__name__", "metric")
        return _own(str(name), function, original, evaluation)
    if chosen is not None and chosen not in NAMES:
        raise UsageError(
            f"there is no metric '{chosen}'", where="--metric", fix=f"choose {', '.join(NAMES)} or module:function"
        )
    data = evaluation.open(original)
    name = str(chosen or ("top1" if data.labelled else "agreement"))
    if name == "agreement":
        return Metric(name, Agreement(original, data, evaluation.device).of)
    if not data.labelled and data.samples is not None:
        raise UsageError(
            "accuracy needs labels",
            where=source_words(evaluation.source),
            fix="put the images in one folder a class, or say --metric agreement",
        )
    tell = counted(progress, "evaluating", "samples", data.samples)

    def share(model: onnx.ModelProto) -> float:
        return float(getattr(accuracy(model, data, device=evaluation.device, progress=tell), name))

    return Metric(name, share)


# ---- agreement


class Agreement:
    """How near a model's outputs are to the original's, without labels.

    Of classifiers the share of samples with the same highest class. Of others 1 - the mean over the outputs of
    min(1, |y - r| / |r|), y and r all numbers of an output on all samples: boxes and scores before any decoder.
    """

    def __init__(self, original: onnx.ModelProto, data: Data, device: Device) -> None:
        self._original, self._source = original, data
        self._device: Device = device

    @functools.cached_property
    def _data(self) -> list[Batch]:
        return list(self._source)

    @functools.cached_property
    def _reference(self) -> list[Feeds]:
        return list(outputs(self._original, self._data, device=self._device))

    def of(self, model: onnx.ModelProto) -> float:
        found = list(outputs(model, self._data, device=self._device))
        same = self._same_class(found)
        if same is not None:
            return same
        return 1.0 - float(np.mean([min(1.0, distance) for distance in self.distances(found).values()]))

    def distances(self, found: Sequence[Feeds]) -> dict[str, float]:
        """Output -> |y - r| / |r| over all samples; infinite where it is not finite or of another size."""
        return {name: self._distance(name, found) for name in self._reference[0]}

    def _distance(self, name: str, found: Sequence[Feeds]) -> float:
        far = size = 0.0
        for wanted, got in zip(self._reference, found, strict=True):
            r, y = (np.asarray(side.get(name, np.nan), np.float64) for side in (wanted, got))
            far += float(np.square(y - r).sum()) if y.shape == r.shape else math.inf
            size += float(np.square(r).sum())
        ratio = math.sqrt(far / size) if size and math.isfinite(far) else math.inf
        return 0.0 if far == 0 else ratio

    def _same_class(self, found: Sequence[Feeds]) -> float | None:
        hits = count = 0
        for wanted, got, batch in zip(self._reference, found, self._data, strict=True):
            rows = [value for value in wanted.values() if value.ndim == 2 and len(value) == batch.size > 0]
            if len(rows) != len(wanted) or len(rows) != 1 or rows[0].shape[1] < 2:
                return None
            (name,) = wanted
            hits += int((rows[0].argmax(1) == got[name].argmax(1)).sum())
            count += batch.size
        return hits / count if count else None


# ---- the user's own


def _own(name: str, function: Callable[..., Any], original: onnx.ModelProto, evaluation: Evaluation) -> Metric:
    wanted = _parameters(function, name)
    if wanted == 1:
        return Metric(name, lambda model: _number(lambda: _on_file(function, model), name))
    data = evaluation.open(original, targets=True)

    def on_outputs(model: onnx.ModelProto) -> float:
        values, labels = collected(model, data, evaluation.device)
        return _number(lambda: function(values, labels), name)

    return Metric(name, on_outputs)


def collected(
    model: onnx.ModelProto, data: Data, device: Device, progress: Count = silent
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """All outputs on all samples, one array each, and the labels; outputs without a row a sample come as lists."""
    session, rows, labels = open_session(model, device=device), [], []
    for batch in data:
        rows.append(session.run(batch.feeds))
        labels.append(batch.labels)
        progress(sum(len(next(iter(row.values()))) for row in rows[-1:]), None)
    found = {name: _joined([row[name] for row in rows]) for name in (rows[0] if rows else {})}
    known = [label for label in labels if label is not None]
    return found, np.concatenate(known) if known and len(known) == len(labels) else None


def _joined(parts: list[Any]) -> Any:  # noqa: ANN401 - arrays, or what a model yields instead
    shapes = {getattr(part, "shape", (None,))[1:] for part in parts}
    return np.concatenate(parts) if len(shapes) == 1 and isinstance(parts[0], np.ndarray) and parts[0].ndim else parts


def _on_file(function: Callable[..., Any], model: onnx.ModelProto) -> Any:  # noqa: ANN401 - what the user's function says
    with scratch_folder() as folder:
        return function(str(save_model(model, Path(folder) / "model.onnx")))


def _parameters(function: Callable[..., Any], name: str) -> int:
    """1 or 2: how many the user's function must be given. Raises UsageError."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in places)
    if needed > 2 or not places or any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        raise UsageError(
            f"the metric has {needed} parameters",
            where=name,
            fix="let it take (outputs, labels), or the path of a model alone",
        )
    return min(max(needed, 1), 2)


def _number(call: Callable[[], Any], name: str) -> float:
    try:
        with users_code():
            value = call()
    except BaseException as error:
        if not is_theirs(error):
            raise
        raise failed(error, name, _YOURS) from error
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, Mapping | str) or not math.isfinite(number):
        raise UsageError(f"the metric gives {value!r}", where=name, fix="return one finite number: more is better")
    return number
