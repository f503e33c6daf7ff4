"""Mean intersection over union: how well a model says what every pixel belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ...passes.errors import ReadError, UsageError
from ..data.preprocess import Layout
from ..data.sources import Batch
from ..device import Device
from ..progress import Count, silent
from ..session import Runnable, open_session
from .masks import classes_of, map_output


@dataclass(frozen=True, slots=True)
class Miou:
    """Mean over the classes of |predicted and true| / |predicted or true|, over all pixels of all images together.

    ignore: the class number of pixels that do not count
    first: the number of the model's first class in the masks; smaller ones do not count (1 for ADE20K)
    binary: whether every pixel of the masks that is not 0 is the one object
    """

    ignore: int = 255
    first: int = 0
    binary: bool = False

    def of(
        self, model: Runnable, data: Iterable[Batch], layout: Layout, device: Device = "auto", progress: Count = silent
    ) -> float:
        """Of a model on batches whose labels are masks. Raises UsageError or ReadError where the two do not fit."""
        return mean_iou(self.confusion(model, data, layout, device, progress))

    def confusion(
        self, model: Runnable, data: Iterable[Batch], layout: Layout, device: Device = "auto", progress: Count = silent
    ) -> np.ndarray:
        """Pixels of each class (rows) that were taken for each class (columns), int64 (classes, classes)."""
        session = open_session(model, device=device)
        total, done = np.zeros((0, 0), np.int64), 0
        for batch in data:
            assert batch.labels is not None, "masks are there for every image"
            output = map_output(session.run(batch.feeds), batch.size)
            for mask, row in zip(batch.labels, output, strict=True):
                predicted, classes = classes_of(row[None], layout, mask.shape)
                total = _added(total, self._counted(mask, predicted[0], classes))
            done += batch.size
            progress(done, None)
        return total

    def _counted(self, mask: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
        wanted = (mask != 0).astype(np.int64) if self.binary else mask - self.first
        counts = (wanted >= 0) if self.binary else (wanted >= 0) & (mask != self.ignore)
        wanted, predicted = wanted[counts], predicted[counts]
        most = classes or int(max(wanted.max(initial=0), predicted.max(initial=0))) + 1
        if wanted.size and wanted.max() >= most:
            raise ReadError(
                f"a mask has class {wanted.max() + self.first}, and the model has {most} classes",
                where="--metric miou",
                fix="say miou:ignore=N for pixels that do not count, miou:first=1 where classes start at 1, or "
                "miou:binary where masks are 0 and 255",
            )
        return np.bincount(wanted * most + predicted, minlength=most * most).reshape(most, most)


def _added(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sum of two tables of which one may know more classes."""
    most = max(len(first), len(second))
    return sum(np.pad(table, (0, most - len(table))) for table in (first, second))  # type: ignore[return-value]


def mean_iou(confusion: np.ndarray) -> float:
    """Mean over the classes that are there, truly or as predicted. Raises UsageError where no pixel counts."""
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    if not confusion.sum():
        raise UsageError("no pixel of the masks counts", where="--metric miou", fix="see miou:ignore and miou:binary")
    return float((hits[union > 0] / union[union > 0]).mean())
