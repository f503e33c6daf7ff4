"""Batches of samples: the same ones in every iteration, read in the background, of the size that a model fixes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from .random_feeds import Feeds
from .sources import Batch

Part = TypeVar("Part")  # what a batch is read by: the numbers of its samples, and maybe more
# Threads that decode; pillow and zlib let the interpreter go meanwhile.
_READERS = max(2, min((os.cpu_count() or 2) // 2, 8))
_AHEAD = _READERS + 1  # batches that wait decoded, at most


@dataclass(frozen=True, slots=True)
class Data:
    """Batches for a model, the same ones in every iteration.

    samples: how many there are, None where only iterating can tell
    classes: their names where folders give them
    labelled: whether batches come with labels
    fixed: whether the model fixes how many samples a batch has
    broken: how many samples could not be read so far, or are none, and were left out
    held_out: others of the same source, where they were asked for and there are enough
    picking: as `picked`, where batches can be left out without being read

    At most `_AHEAD` batches are held in memory beside the one in use.
    """

    samples: int | None
    classes: tuple[str, ...]
    labelled: bool
    batches: Callable[[], Iterator[Batch]]
    fixed: bool = False
    broken: Callable[[], int] = lambda: 0
    held_out: Data | None = None
    picking: Callable[[Callable[[int], bool]], Iterator[Batch | int]] | None = None

    def picked(self, mine: Callable[[int], bool]) -> Iterator[Batch | int]:
        """The batches of some numbers; in the place of each other one, how many samples it has."""
        if self.picking is not None:
            return self.picking(mine)
        return (batch if mine(number) else batch.size for number, batch in enumerate(self.batches()))

    def example(self) -> Feeds:
        """Input for one run: a sample, or as many as the model fixes."""
        feeds = next(iter(self)).feeds
        return feeds if self.fixed else {name: array[:1] for name, array in feeds.items()}

    def first(self, samples: int) -> Data:
        """The first batches, until so many samples are in them; samples come in random order."""
        if self.samples is not None and self.samples <= samples:
            return self

        def batches() -> Iterator[Batch]:
            seen = 0
            for batch in self.batches():
                yield batch
                seen += batch.size
                if seen >= samples:
                    return

        def picking(mine: Callable[[int], bool]) -> Iterator[Batch | int]:
            seen = 0
            for item in self.picked(mine):
                yield item
                seen += item if isinstance(item, int) else item.size
                if seen >= samples:
                    return

        whole = None if self.samples is None else samples
        return replace(self, samples=whole, batches=batches, picking=picking)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


def in_background(read: Callable[[Part], Batch], parts: Sequence[Part]) -> Iterator[Batch]:
    """Each part's batch in turn, while the next ones are being read."""
    pool = ThreadPoolExecutor(_READERS, "onnx-prune-data")
    waiting: deque[Future[Batch]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(read, part))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def of_size(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same samples in batches of the size that a model fixes; a rest is left out, unless it is all there is."""
    waiting: Batch | None = None
    full = False
    for batch in batches:
        waiting = batch if waiting is None else _joined(waiting, batch)
        while waiting.size >= size:
            yield part(waiting, np.arange(size))
            full, waiting = True, part(waiting, np.arange(size, waiting.size))
    if waiting is not None and waiting.size and not full:
        yield part(waiting, np.resize(np.arange(waiting.size), size))


def _joined(first: Batch, second: Batch) -> Batch:
    feeds = {name: np.concatenate([array, second.feeds[name]]) for name, array in first.feeds.items()}
    both = first.labels is not None and second.labels is not None
    return Batch(feeds, np.concatenate([first.labels, second.labels]) if both else None)  # type: ignore[list-item]


def part(batch: Batch, at: np.ndarray) -> Batch:
    """These samples of a batch."""
    return Batch({n: a[at] for n, a in batch.feeds.items()}, None if batch.labels is None else batch.labels[at])
