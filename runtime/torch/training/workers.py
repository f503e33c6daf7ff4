"""Training images decoded in processes of their own, by torch's DataLoader, while the network trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ....passes.errors import OnnxPruneError, ReadError
from ...data.batches import in_background
from ...data.sources import Batch, Samples

Array = np.ndarray
Part = tuple[Array, Array | None]  # the samples of a batch, and the seeds of their random parts
_MOST, _AHEAD = 16, 2  # processes; batches that each has ready


@dataclass(frozen=True)
class _Parts(Dataset):
    """One item a batch: its arrays, or the words of the error that ended it."""

    read: Callable[[Array, Array | None], Batch]
    parts: Sequence[Part]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> dict[str, Any]:
        try:
            batch = self.read(*self.parts[number])
        except OnnxPruneError as error:
            return {"error": (error.what, str(error.where), str(error.fix))}
        return {"feeds": batch.feeds, "labels": batch.labels} if batch.labels is not None else {"feeds": batch.feeds}


def read_parts(samples: Samples, parts: Sequence[Part], workers: int) -> Iterator[Batch]:
    """Each part's batch in turn, while the next ones are being read.

    workers: processes, 0 for as many as there are cores to each of torchrun's; images that lie decoded in memory need
    none. Raises ReadError for what cannot be read.
    """
    cropped = samples.cropped
    if cropped is None:
        yield from in_background(samples.read, [indices for indices, _ in parts])
        return
    count = workers or _cores()
    if count < 2:
        yield from in_background(lambda part: cropped(*part), parts)
        return
    loader = DataLoader(_Parts(cropped, parts), batch_size=None, num_workers=count, prefetch_factor=_AHEAD)
    for item in loader:
        if "error" in item:
            what, where, fix = item["error"]
            raise ReadError(what, where=where, fix=fix)
        feeds = {name: tensor.numpy() for name, tensor in item["feeds"].items()}
        yield Batch(feeds, item["labels"].numpy() if "labels" in item else None)


def _cores() -> int:
    """For this one of the processes on the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), _MOST)
