"""How good a model is on data: accuracy where there are labels, else how far it is from a reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto

from ...passes.errors import UsageError
from ..data.batches import Data
from ..data.random_feeds import Feeds
from ..data.sources import Batch
from ..device import Device
from ..processes.together import Alone, Together
from ..progress import Count, silent
from ..proof.saturation import observed, tap, taps
from ..session import Runnable, Session, open_session
from .ahead import side_by_side, threads_each, workers

_INDICES = frozenset([TensorProto.INT64, TensorProto.INT32])
_LONG = 4  # bytes
_IMPOSSIBLE = 1e-12  # a probability of less than that is rounding


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of the samples whose class is the highest output, and among the five highest."""

    top1: float
    top5: float
    samples: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far outputs are from those of a reference: `value` is the mean of `outputs`, one number an output.

    kind: "kl", in nats a sample, where every output is that of a classifier; else "relative mse", mean (y - r)^2 over
    mean r^2.
    """

    value: float
    outputs: dict[str, float]
    kind: Literal["kl", "relative mse"]
    samples: int


def accuracy(
    model: Runnable,
    data: Iterable[Batch],
    *,
    device: Device = "auto",
    threads: int | None = None,
    progress: Count = silent,
    group: Together = Alone(),  # noqa: B008 - a value
) -> Accuracy:
    """Top-1 and top-5 of the first output of the form (samples, classes); progress is told how many samples are done.

    group: processes that all ask for it, and share the batches of `Data`.
    Raises UsageError where the data have no labels, or labels that the model has no class for, or no output is one of
    a classifier.
    """
    session = open_session(model, device=device, threads=threads_each(device) if threads is None else threads)
    hits, done = np.zeros(2), 0

    def ranked(batch: Batch) -> np.ndarray:
        if batch.labels is None:
            raise UsageError(
                "accuracy needs labels", where="the data", fix="put the images in one folder a class, or compare models"
            )
        return _ranks(_logits(session.run(batch.feeds), len(batch.labels)), batch.labels)

    shared = group.count > 1 and isinstance(data, Data)
    mine = _own(data, group) if shared and isinstance(data, Data) else data
    for ranks in side_by_side(ranked, mine, workers(device) if threads is None else 1):
        hits += np.count_nonzero(ranks < 1), np.count_nonzero(ranks < 5)
        done += len(ranks)
        progress(done, None)
    if shared:
        found = group.total([hits, np.array([done])])
        hits, done = found[0], int(found[1][0])
    if not done:
        raise UsageError("there are no samples to evaluate", where="the evaluation data", fix="give at least one")
    return Accuracy(float(hits[0] / done), float(hits[1] / done), done)


def classifies(model: Runnable, batch: Batch, *, device: Device = "auto") -> bool:
    """Whether an output has the form (samples, classes), so that `accuracy` can be told."""
    (found,) = outputs(model, [batch], device=device)
    return any(_classifies(value, batch.size) for value in found.values())


def _own(data: Data, group: Together) -> Iterator[Batch]:
    """The batches that this process takes."""
    picked = data.picked(lambda number: number % group.count == group.rank)
    return (batch for batch in picked if not isinstance(batch, int))


def outputs(
    model: Runnable, data: Iterable[Batch], *, device: Device = "auto", threads: int | None = None
) -> Iterator[Feeds]:
    """The model's floating-point outputs on each batch; as a list, a reference for several `divergence`s.

    Where there are none, what an index is taken of, by the output's name, or else the integers.
    """
    chosen = behind_indices(model) if isinstance(model, onnx.ModelProto) else {}
    session = open_session(model, device=device, threads=threads, additions=taps(chosen) if chosen else None)
    return (_shown(session, batch, chosen) for batch in data)


def behind_indices(model: onnx.ModelProto) -> dict[str, str]:
    """Output -> the tensor of numbers that it is the index of; empty where an output has numbers itself."""
    kinds = [value.type.tensor_type.elem_type for value in model.graph.output]
    if not all(kind in _INDICES for kind in kinds):
        return {}
    return {output: tensor for output, tensor in observed(model.graph).items() if output != tensor}


def divergence(
    model: Runnable,
    reference: Iterable[Feeds],
    data: Iterable[Batch],
    *,
    device: Device = "auto",
    threads: int | None = None,
) -> Divergence:
    """How far the model's outputs are from `reference`, which is `outputs` of another model on the same data.

    Classifiers, whose outputs are (samples, classes): KL(softmax(reference) || softmax(model)), mean over the samples;
    outputs that are probabilities already are taken as such. Raises UsageError where no output can be compared.
    """
    found = outputs(model, data, device=device, threads=threads)
    counts = (batch.size for batch in data)
    return compare_outputs(reference, found, counts)


def compare_outputs(
    reference: Iterable[Feeds],
    compared: Iterable[Feeds],
    counts: Iterable[int],
    *,
    logits: bool = False,
) -> Divergence:
    """`divergence` of outputs that are there already; counts: samples a batch.

    logits: classifiers by "relative mse" as well, of logits less their mean. A trained classifier is sure of nearly all
    samples, so that few decide a mean of KL divergences: of groups of ResNet-56 its logarithm on 64 samples is off by
    0.98 (standard deviation), that of the logits on 16 by 0.21.
    """
    sums: dict[str, np.ndarray] = {}
    classifies, done = True, 0
    for wanted, got, count in zip(reference, compared, counts, strict=True):
        names = [name for name in wanted if name in got]
        classifies = classifies and all(_has_classes(wanted[n]) for n in names if wanted[n].shape == got[n].shape)
        for name in names:
            parts = _parts(wanted[name], got[name], classifies=classifies, logits=logits)
            sums[name] = sums.get(name, np.zeros(3)) + parts
        done += count
    classifies = classifies and not logits
    if not sums:
        raise UsageError(
            "the models have no output that can be compared",
            where="their outputs",
            fix="compare models of one interface",
        )
    kind = "kl" if classifies else "relative mse"
    values = {n: float(s[0] / done if classifies else s[1] / (s[2] or 1.0)) for n, s in sums.items()}
    return Divergence(float(np.mean(list(values.values()))), values, kind, done)


def _has_classes(values: np.ndarray) -> bool:
    return values.ndim == 2 and values.shape[1] > 1 and not is_index(values)


def _parts(wanted: np.ndarray, got: np.ndarray, *, classifies: bool, logits: bool) -> np.ndarray:
    """What one output of one batch adds, as `_distances`; of another size it is as far as can be."""
    if wanted.shape != got.shape:
        return np.array([0.0, 1.0, 1.0])
    if is_index(wanted):
        return np.array([0.0, (wanted != got).sum(), wanted.size])
    one, other = _known(wanted.astype(np.float64), got.astype(np.float64))
    if logits and classifies:
        one, other = _centred(one), _centred(other)
    return _distances(one, other, classifies and not logits)


def _known(wanted: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with zeros where the reference is not finite, which says nothing; what else is not finite counts as zero."""
    finite = np.isfinite(wanted)
    return np.where(finite, wanted, 0.0), np.where(finite & np.isfinite(got), got, 0.0)


def top1(found: Iterable[Feeds], labels: Sequence[np.ndarray | None]) -> float | None:
    """The share of right samples by outputs that are there already; None without labels, or where none classifies."""
    right, done = 0, 0
    for feeds, known in zip(found, labels, strict=True):
        if known is None or not any(_classifies(value, len(known)) for value in feeds.values()):
            return None
        right += int((_ranks(_logits(dict(feeds), len(known)), known) == 0).sum())
        done += len(known)
    return right / done if done else None


def _distances(reference: np.ndarray, value: np.ndarray, classifies: bool) -> np.ndarray:
    """Sums over a batch, float64: of the KL divergences, of (y - r)^2, of r^2."""
    kl = float(_kl(reference, value).sum()) if classifies else 0.0
    return np.array([kl, np.square(value - reference).sum(), np.square(reference).sum()])


def _kl(reference: np.ndarray, value: np.ndarray) -> np.ndarray:
    """KL(softmax(reference) || softmax(value)) of each row, in nats, never below 0."""
    p, q = _log_probabilities(reference), _log_probabilities(value)
    terms = np.exp(p) * (p - q)
    return np.maximum(np.where(np.isneginf(p), 0.0, terms).sum(1), 0.0)


def _centred(rows: np.ndarray) -> np.ndarray:
    """Logits up to a constant, which changes no probability, of either; a probability of 0 counts as 1e-12."""
    rows = np.log(np.maximum(rows, _IMPOSSIBLE)) if _are_probabilities(rows) else rows
    return rows - rows.mean(1, keepdims=True)


def _are_probabilities(rows: np.ndarray) -> bool:
    return bool((rows >= 0).all()) and np.allclose(rows.sum(1), 1, atol=1e-3)


def _log_probabilities(rows: np.ndarray) -> np.ndarray:
    if _are_probabilities(rows):
        rows = np.log(np.maximum(rows, np.finfo(np.float32).tiny))
    rows = rows - rows.max(1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(1, keepdims=True))


def _shown(session: Session, batch: Batch, chosen: Mapping[str, str]) -> Feeds:
    found = session.run(batch.feeds, [tap(output) for output in chosen] or None)
    names = {tap(output): output for output in chosen}
    return comparable({names.get(name, name): value for name, value in found.items()})


def is_index(values: np.ndarray) -> bool:
    """Whether they are the same or not, and no nearer or farther: truth values, and integers too long for pixels."""
    return values.dtype.kind == "b" or (values.dtype.kind in "iu" and values.itemsize >= _LONG)


def comparable(found: Mapping[str, object]) -> Feeds:
    """The outputs of floating-point numbers, or, where there are none, those of integers and truth values."""
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    floats = {name: value for name, value in arrays.items() if value.dtype.kind not in "biuOUS"}
    return floats or {name: value for name, value in arrays.items() if value.dtype.kind in "biu"}


def _logits(values: dict[str, object], samples: int) -> np.ndarray:
    for value in values.values():
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuOUS" and _classifies(value, samples):
            return value.reshape(samples, -1)
    raise UsageError(
        "no output of the model has the form (samples, classes)",
        where=", ".join(f"{k} {getattr(v, 'shape', '')}" for k, v in values.items()),
        fix="compare it with the original: onnx-prune evaluate --reference",
    )


def _classifies(value: np.ndarray, samples: int) -> bool:
    """Whether it is (samples, classes), maybe with further axes of size 1."""
    if value.ndim < 2 or value.shape[1] < 2:
        return False
    return len(value) == samples and value.size == samples * value.shape[1]


def _ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes are ahead of the right one; of equal outputs the first is ahead, as argmax has it."""
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise UsageError(
            f"a label is {wrong}, and the model has {logits.shape[1]} classes",
            where="the evaluation data",
            fix="give labels from 0, in the order of the model's outputs",
        )
    right = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > right) | ((logits == right) & earlier)).sum(1) + np.where(np.isnan(right[:, 0]), 10**6, 0)
