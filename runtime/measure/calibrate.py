"""Calibration: run a model on data once and keep the moments of what its consumers read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import onnx

from ...passes.algebra.moments import ActivationStatistics, Moments, MomentsSet
from ...passes.algebra.positions import Positions
from ...passes.channels.activations import activations_read
from ...passes.channels.labels import LabelledGraph
from ...passes.errors import ReadError, UsageError
from ...passes.rewrite.taps import Draw, Instrument, Taps, find_taps, instrument
from ..data.random_feeds import Feeds
from ..data.sources import Batch
from ..device import Device, cuda_available
from ..processes.together import Alone, Together
from ..progress import Count, silent
from ..session import Resident, Session, fetched, open_session
from .ahead import side_by_side, threads_each, workers
from .resident import ResidentTaps
from .sums import Accumulator, GramProducts

Array = np.ndarray
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How activations are sampled and where the model runs.

    positions: patches an image and tensor, None for `positions.default_positions`, all where a map has no more
    seed: of the positions
    activations: whether statistics of every channel are taken too, where its activations stand
    limit: bytes that the second moment of one consumer may take, above which patches are kept instead
    threads: of one operator, None for all
    resident: whether activations stay where the model runs, and sums are made there; None: on a GPU
    """

    positions: int | None = None
    seed: int = 0
    activations: bool = False
    limit: int = 256 << 20
    device: Device = "auto"
    threads: int | None = None
    resident: bool | None = None


def calibrate(
    labelled: LabelledGraph,
    data: Iterable[Batch | int],
    taps: Taps | None = None,
    settings: Calibration | None = None,
    progress: Count = silent,
    group: Together = Alone(),  # noqa: B008 - a value
) -> MomentsSet:
    """Moments of all consumers that `taps` read (by default every one of channels), in one pass over the data.

    The labels must be those of shapes of the data's size. Memory: the moments, rows that wait to be added (at most half
    of that again), and one batch, however many images there are. progress is told how many images are done. The
    number of samples stands for a batch that another process of the group takes; the moments are those of all.
    Raises UsageError where the data do not fit, ReadError where the model does not run or gives what is not finite.
    """
    settings = settings or Calibration()
    taps = find_taps(labelled) if taps is None else taps
    model = labelled.graph.source
    sites = chain(*activations_read(labelled).values()) if settings.activations else ()
    instruments = instrument(taps, labelled.graph.opset, sites)
    sums = _Sums(instruments, settings)
    images = 0
    for count in sums.run(model, data):
        images += count
        progress(images, None)
    if not images:
        raise UsageError("there are no samples to calibrate on", where="the calibration data", fix="give at least one")
    if group.count > 1:
        sums.join(group)
    return sums.result(labelled.graph.sha256())


def iterate_rows(
    model: onnx.ModelProto, taps: Taps, data: Iterable[Batch], settings: Calibration | None = None
) -> Iterator[tuple[Array, ...]]:
    """Batch by batch and tap by tap the sampled patches, (images * positions, C * k) float32, channel-major.

    With the same data, seed and positions the rows of two models belong together: same image, same output position. So
    `iterate_rows(pruned, taps.only(names), ...)` are the inputs X' of a sequential re-fit, and
    `iterate_rows(original, taps.outputs({...}), ...)` its targets Y. The taps of the original serve the pruned model,
    whose tensors keep their names.
    """
    settings = settings or Calibration()
    instruments = instrument(taps, _opset(model))
    for _, patches, _ in _run(model, instruments, data, settings):
        yield tuple(to_rows(p) for p in patches)


def sample_rows(
    model: onnx.ModelProto, taps: Taps, data: Iterable[Batch], settings: Calibration | None = None
) -> tuple[Array, ...]:
    """`iterate_rows` of all batches together: tap by tap (rows, C * k) float32. Memory: all of them."""
    return tuple(np.concatenate(parts) for parts in zip(*iterate_rows(model, taps, data, settings), strict=True))


def to_rows(patches: Array) -> Array:
    """(images, positions, k, C) to (images * positions, C * k)."""
    images, positions, k, channels = patches.shape
    return patches.transpose(0, 1, 3, 2).reshape(images * positions, k * channels)


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def _run(
    model: onnx.ModelProto, instruments: Instrument, data: Iterable[Batch | int], settings: Calibration
) -> Iterator[tuple[int, list[Array], Mapping[str, Array]]]:
    """Batch by batch the number of images, tap by tap the patches (images, positions, k, C), and all outputs."""
    threads = threads_each(settings.device) if settings.threads is None else settings.threads
    session: Session = open_session(model, device=settings.device, threads=threads, additions=instruments.additions)
    positions = Positions(settings.seed, settings.positions)
    outputs = [value.name for value in instruments.additions.graph.output]

    def run(item: tuple[Feeds, Draw, int]) -> tuple[int, list[Array], Mapping[str, Array]]:
        feeds, draw, count = item
        found = session.run({**feeds, **draw.feeds}, outputs)
        return count, instruments.patches(found, draw), found

    yield from side_by_side(run, _drawn(instruments, data, positions), workers(settings.device))


def _run_resident(
    model: onnx.ModelProto, instruments: Instrument, data: Iterable[Batch | int], settings: Calibration
) -> Iterator[tuple[int, Draw, Mapping[str, Resident]]]:
    """As `_run`, with the outputs left where the model runs."""
    session = open_session(model, device=settings.device, threads=settings.threads, additions=instruments.additions)
    outputs = [value.name for value in instruments.additions.graph.output]
    for feeds, draw, count in _drawn(instruments, data, Positions(settings.seed, settings.positions)):
        yield count, draw, session.run_resident({**feeds, **draw.feeds}, outputs)


def _drawn(
    instruments: Instrument, data: Iterable[Batch | int], positions: Positions
) -> Iterator[tuple[Feeds, Draw, int]]:
    """Of each batch the feeds, where patches are taken, and the number of images."""
    for batch in data:
        if isinstance(batch, int):
            instruments.draw(batch, positions)  # what is drawn for an image follows from its number
            continue
        count = _images(batch.feeds, instruments.taps)
        yield batch.feeds, instruments.draw(count, positions), count


def _images(feeds: Feeds, taps: Taps) -> int:
    """The batch size; raises UsageError where the rest of a shape is not what the taps were made for."""
    for name, size in taps.sizes.items():
        if name in feeds and feeds[name].shape[1:] != size:
            raise UsageError(
                f"calibration data of the size {feeds[name].shape[1:]}, where the model was read for {size}",
                where=f"input {name!r}",
                fix="give all data in one size (--resize), and read the model for that size",
            )
    return len(next(iter(feeds.values())))


class _Sums:
    """What is kept of the batches."""

    def __init__(self, instruments: Instrument, settings: Calibration) -> None:
        self._instruments, self._settings, self._limit = instruments, settings, settings.limit
        self._products = GramProducts(settings.device, settings.threads)
        self._accumulators: list[list[Accumulator]] = []
        self._means: dict[str, Array] = {}
        self._images = 0

    def run(self, model: onnx.ModelProto, data: Iterable[Batch | int]) -> Iterator[int]:
        """Run the model, count what it shows, and say how many images are in each batch."""
        if not self._stays_there():
            for count, patches, found in _run(model, self._instruments, data, self._settings):
                self.add(patches, found, count)
                yield count
            return
        taps = ResidentTaps(self._instruments, self._limit, self._settings.device, self._settings.threads)
        means = list(chain(*self._instruments.statistics.values()))
        for count, draw, values in _run_resident(model, self._instruments, data, self._settings):
            taps.add(values, draw)
            self._note({name: fetched(values[name]) for name in means}, count)
            yield count
        self._accumulators = taps.accumulators()

    def _stays_there(self) -> bool:
        settings = self._settings
        return settings.resident if settings.resident is not None else settings.device != "cpu" and cuda_available()

    def add(self, patches: list[Array], found: Mapping[str, Array], images: int) -> None:
        taps = self._instruments.taps
        if not self._accumulators:
            self._accumulators = [self._begin(p, tap.groups) for p, tap in zip(patches, taps, strict=True)]
        for patch, tap, accumulators in zip(patches, taps, self._accumulators, strict=True):
            for accumulator, rows in zip(accumulators, _groups(patch, tap.groups), strict=True):
                accumulator.add(rows)
        self._note(found, images)

    def _note(self, found: Mapping[str, Array], images: int) -> None:
        """Count the statistics of activations, and the images."""
        for tensor, outputs in self._instruments.statistics.items():
            means = np.stack([found[o].astype(np.float64) for o in outputs]) * images
            self._means[tensor] = self._means.get(tensor, 0) + means
        self._images += images

    def join(self, group: Together) -> None:
        """The sums of all processes."""
        for accumulator in chain(*self._accumulators):
            accumulator.join(group)
        names = list(self._means)
        *means, images = group.total([*(self._means[name] for name in names), np.array([self._images])])
        self._means, self._images = dict(zip(names, means, strict=True)), int(images[0])

    def _begin(self, patches: Array, groups: int) -> list[Accumulator]:
        kernel, channels = patches.shape[2], patches.shape[3] // groups
        return [Accumulator(self._products, kernel, channels, self._limit) for _ in range(groups)]

    def result(self, graph_sha256: str) -> MomentsSet:
        consumers: dict[str, tuple[Moments, ...]] = {}
        for tap, accumulators in zip(self._instruments.taps, self._accumulators, strict=True):
            moments = tuple(accumulator.result() for accumulator in accumulators)
            if not all(np.isfinite(m.mean).all() for m in moments):
                raise ReadError(
                    "the model's activations are not finite on the calibration data",
                    where=f"tensor {tap.tensor!r}",
                    fix="give data as the model was trained on, prepared as in training, or take --calibration none",
                    tensor=tap.tensor,
                )
            consumers.update(dict.fromkeys(tap.consumers, moments))
        return MomentsSet(graph_sha256, consumers, {t: self._statistics(t) for t in self._means})

    def _statistics(self, tensor: str) -> ActivationStatistics:
        """Of what single precision could not hold where it was made, the largest number that it can."""
        mean, square, nonzero = self._means[tensor] / self._images
        with np.errstate(over="ignore", invalid="ignore"):
            var = np.maximum(square - mean**2, 0)
        return ActivationStatistics(
            1 - nonzero, *(np.nan_to_num(v, posinf=_LARGEST, neginf=-_LARGEST) for v in (mean, var))
        )


def _groups(patches: Array, groups: int) -> Iterator[Array]:
    """(images, positions, k, C) to (images * positions, k * C / groups) for each group."""
    rows = patches.shape[0] * patches.shape[1]
    if groups == 1:
        yield patches.reshape(rows, -1)
        return
    split = patches.reshape(rows, patches.shape[2], groups, -1)
    for group in range(groups):
        yield split[:, :, group].reshape(rows, -1)
