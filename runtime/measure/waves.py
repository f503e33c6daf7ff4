"""The samples of a frontier in waves: those of later ones stay behind until somebody asks for as many.

A layer whose maps are large has rows enough in few samples. The others run past it later, through many layers at once:
without patches being taken, and without what lies between two layers being put away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ...passes.graph.model import Graph
from ...passes.rewrite.taps import Taps
from ..data.sources import Batch
from ..device import Device
from .calibrate import Calibration
from .segments import LIMIT, Frontier, number_of
from .shelf import Shelf

Array = np.ndarray
_HALVINGS = 3  # the first wave is an eighth of the samples, or more


class Waves:
    """Frontiers of one graph, one behind the other. A context, at whose end what they keep goes.

    sizes: how many samples there are in the first wave, the first two, and so on, whole batches; all in the end
    """

    def __init__(
        self, graph: Graph, data: Sequence[Batch], *, device: Device = "auto", threads: int | None = None
    ) -> None:
        self.graph = graph
        self._shelf = Shelf(LIMIT)
        self._frontiers: list[Frontier] = []
        self.sizes: list[int] = []
        done = 0
        for part in _parted(data):
            self._frontiers.append(Frontier(graph, part, device=device, threads=threads, shelf=self._shelf, done=done))
            done += sum(batch.size for batch in part)
            self.sizes.append(done)

    def __enter__(self) -> Waves:
        return self

    def __exit__(self, *error: object) -> None:
        self._shelf.close()

    @property
    def samples(self) -> int:
        return self.sizes[-1] if self.sizes else 0

    def whole(self, samples: int) -> int:
        """So many samples or more, as many as are in whole waves."""
        return next((size for size in self.sizes if size >= samples), self.samples)

    def counts(self, samples: int) -> list[int]:
        """The sizes of the batches of so many samples."""
        return [count for frontier in self._of(samples) for count in frontier.counts]

    def rows(self, end: int, taps: Taps, settings: Calibration, samples: int) -> Iterator[tuple[Array, ...]]:
        """`Frontier.rows` of the first so many samples; the others stay where they are."""
        for frontier in self._of(samples):
            yield from frontier.rows(end, taps, settings)

    def wave(self, number: int) -> Frontier:
        """The samples of that wave alone."""
        return self._frontiers[number]

    def waves(self, samples: int) -> int:
        """In how many waves so many samples are."""
        return sum(size < samples for size in self.sizes) + 1 if self.sizes else 0

    def number(self, tensor: str) -> int:
        """See `number_of`."""
        return number_of(self.graph, tensor)

    def _of(self, samples: int) -> Iterable[Frontier]:
        return self._frontiers[: self.waves(samples)]


def _parted(data: Sequence[Batch]) -> Iterator[list[Batch]]:
    """The batches in waves: about an eighth of the samples, up to a quarter, up to a half, and the rest."""
    whole = sum(batch.size for batch in data)
    bounds = [math.ceil(whole / 2**power) for power in range(_HALVINGS, -1, -1)]
    part: list[Batch] = []
    done = 0
    for batch in data:
        part.append(batch)
        done += batch.size
        if done >= bounds[0]:
            yield part
            part = []
            bounds = [bound for bound in bounds if bound > done] or [whole + 1]
    if part:
        yield part
