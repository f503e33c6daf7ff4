"""How near the outputs of a model are to those of the original."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.random_feeds import Feeds
from ..data.sources import Batch
from ..device import Device
from ..session import Runnable
from .evaluate import is_index, outputs

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Closeness:
    """How near one model is to another.

    distance: mean over the samples and the outputs of min(1, |y - r|^2 / |r|^2), so that no single sample and no
        output of large numbers outweighs the others; 1 where an output is not finite and the original's is
    same_class: share of the samples whose highest output is the same, None for models that do not classify
    samples: how many were compared
    """

    distance: float
    same_class: float | None
    samples: int


def closeness(
    original: Runnable, models: Sequence[Runnable], data: Iterable[Batch], *, device: Device = "auto"
) -> list[Closeness]:
    """`Closeness` of each model to the original on the same samples."""
    batches = list(data)
    reference = list(outputs(original, batches, device=device))
    return [_closeness(reference, list(outputs(model, batches, device=device)), batches) for model in models]


def _closeness(reference: list[Feeds], values: list[Feeds], batches: list[Batch]) -> Closeness:
    distances, same = [np.zeros(0)], [np.zeros(0, bool)]
    classifies = True
    for wanted, got, batch in zip(reference, values, batches, strict=True):
        count = batch.size
        names = list(wanted)
        distances.append(_distances([wanted[n] for n in names], [got.get(n) for n in names], count))
        classes = [n for n in names if _classifies(wanted[n], got.get(n), count)]
        classifies = classifies and len(classes) == len(names) == 1
        if classifies:
            same.append(wanted[classes[0]].argmax(1) == got[classes[0]].argmax(1))
    found = np.concatenate(distances)
    agreement = float(np.concatenate(same).mean()) if classifies and len(found) else None
    return Closeness(float(found.mean()) if len(found) else 0.0, agreement, len(found))


def _classifies(wanted: Array, got: Array | None, count: int) -> bool:
    alike = got is not None and got.shape == wanted.shape and wanted.dtype.kind not in "biu"
    return alike and wanted.ndim == 2 and wanted.shape[0] == count and wanted.shape[1] > 1


def _distances(wanted: list[Array], got: list[Array | None], count: int) -> Array:
    """(count,), of each sample; a batch whose outputs are not one row a sample counts as one sample.

    The mean over the outputs; one that has nothing to compare, all of it zero or not finite in the original and as it
    should be in the other, does not count. Of indices the share that differs; another size is as far as can be.
    """
    rows = count if all(w.ndim and len(w) == count for w in wanted) else 1
    found, of = np.zeros(rows), np.zeros(rows)
    for w, g in zip(wanted, got, strict=True):
        if g is None or g.shape != w.shape:
            found, of = found + 1, of + 1
            continue
        far, size = _squares(w.reshape(rows, -1), g.reshape(rows, -1))
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            found += np.where(far == 0, 0.0, np.nan_to_num(np.minimum(far / size, 1.0), nan=1.0))
        of += (far > 0) | (size > 0)
    return found / np.maximum(of, 1)


def _squares(wanted: Array, got: Array) -> tuple[Array, Array]:
    """|y - r|^2 and |r|^2 of each row, where r is finite; of indices how many differ, of how many."""
    if is_index(wanted):
        return (wanted != got).sum(1).astype(np.float64), np.full(len(wanted), float(wanted.shape[1]))
    w, g = np.asarray(wanted, np.float64), np.asarray(got, np.float64)
    known = np.isfinite(w)
    difference = np.where(known, np.where(np.isfinite(g), g, np.inf) - np.where(known, w, 0.0), 0.0)
    return np.square(difference).sum(1), np.square(np.where(known, w, 0.0)).sum(1)
