"""Calibration and test data: batches of feeds for a model, read in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from ...passes.errors import OnnxPruneError, ReadError, UsageError
from .functions import failed, imported, names_function
from .inputs import ModelInput, check_feeds, fits
from .preprocess import ImageReader, Preprocessing, image_reader
from .random_feeds import Feeds
from .sources import Batch, Samples, array_samples, class_numbers, image_samples, load_arrays

DataSource = str | Path | Mapping[str, np.ndarray] | Callable[[], Iterable[object]]

_READERS = 2  # threads that decode; pillow and zlib let the interpreter go meanwhile
_AHEAD = 3  # batches that wait decoded, at most
_BATCH_ELEMENTS, _LARGEST_BATCH = 1 << 20, 128  # a batch of photographs is about 8, of CIFAR images 128
_KINDS = "a folder or zip of images, .npz, .npy or module:function"


@dataclass(frozen=True, slots=True)
class Data:
    """Batches for a model, the same ones in every iteration.

    samples: how many there are, None where only iterating can tell; classes: their names where folders give them;
    labelled: whether batches come with labels; fixed: whether the model fixes how many samples a batch has; broken: how
    many images could not be read so far and were left out. At most three batches are held in memory beside the one in
    use.
    """

    samples: int | None
    classes: tuple[str, ...]
    labelled: bool
    batches: Callable[[], Iterator[Batch]]
    fixed: bool = False
    broken: Callable[[], int] = lambda: 0

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

        return replace(self, samples=None if self.samples is None else samples, batches=batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


def open_data(
    source: DataSource,
    inputs: Sequence[ModelInput],
    preprocessing: Preprocessing | None = None,
    *,
    samples: int | None = None,
    batch: int | None = None,
    seed: int = 0,
) -> Data:
    """Open data for a model with these inputs (`inputs.model_inputs`).

    source: a folder or zip of images, in one folder a class or flat; .npz with an array for each input and maybe
    `label`; .npy for models with one input; "module:function", or a function, that is called without arguments and
    yields batches (feeds, or feeds and labels); or a mapping from input names to arrays.
    samples: use so many, drawn from `seed`, of each class the same number where there are labels, in random order; of a
    function the first ones. batch: samples a batch, unless the model fixes it, when a rest that fills none is left out.
    Raises UsageError or ReadError where the data are not what the model asks for, before anything runs.
    """
    if samples is not None and samples < 1:
        raise UsageError(
            f"--samples {samples}: at least one is needed", where="--samples", fix="leave it out to use all"
        )
    function = _function(source)
    if function is not None:
        _no_images(preprocessing, source)
        return _stream(function, inputs, samples, str(source))
    found = _samples(source, inputs, preprocessing)
    order = choose(found.count, found.labels, samples, seed)
    size = _batch_size(found, inputs, batch)
    if inputs[0].batch and len(order) < size and found.labels is None:
        order = np.resize(order, size)  # nothing is counted that comes twice: moments are means
    cut = len(order) - (len(order) % size if inputs[0].batch else 0)
    if not cut:
        raise ReadError(
            f"{len(order)} labelled samples do not fill one batch of {size}, which the model fixes",
            where=str(inputs[0]),
            fix="give more samples",
        )
    parts = [order[start : start + size] for start in range(0, len(order), size)]

    def batches() -> Iterator[Batch]:
        whole = (batch for batch in in_background(found.read, parts) if batch.size)
        return _of_size(whole, inputs[0].batch) if inputs[0].batch else whole

    return Data(cut, found.classes, found.labels is not None, batches, bool(inputs[0].batch), found.broken)


def choose(count: int, labels: np.ndarray | None, samples: int | None, seed: int) -> np.ndarray:
    """Indices of `samples` of `count` samples in random order, balanced over the classes; all in order for None.

    Of each class as many as of any other while it has them, the odd ones of random classes.
    """
    if samples is None or samples >= count:
        return np.arange(count)
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    if labels is None:
        return order[:samples]
    shuffled = labels[order]
    grouped = np.argsort(shuffled, kind="stable")
    starts = np.flatnonzero(np.diff(shuffled[grouped], prepend=shuffled[grouped[0]] - 1))
    turn = np.empty(count, np.int64)  # how many of its class come before it
    turn[grouped] = np.arange(count) - np.repeat(starts, np.diff(starts, append=count))
    return rng.permutation(order[np.argsort(turn, kind="stable")[:samples]])


def open_samples(
    source: DataSource, inputs: Sequence[ModelInput], preprocessing: Preprocessing | None = None
) -> tuple[Samples, ImageReader | None]:
    """Samples that can be read in any order, for training; of a function all that it yields, held in memory.

    Images that a model reads as floats come as the pixels themselves, a quarter of the memory, and with the reader
    whose `factor` and `offset` they still need. Otherwise like `open_data`.
    """
    function = _function(source)
    if function is not None:
        _no_images(preprocessing, source)
        return _held(_stream(function, inputs, None, str(source))), None
    found = _samples(source, inputs, preprocessing, pixels=True)
    held = found.read(np.zeros(1, np.int64)).feeds[inputs[0].name].dtype
    pixels = held.kind == "u" and inputs[0].dtype.kind == "f"
    return found, image_reader(inputs[0], preprocessing or Preprocessing()) if pixels else None


def example_input(source: DataSource, inputs: Sequence[ModelInput]) -> Feeds | None:
    """Arrays that are one input of the model and no samples: their first axes differ, or some have none.

    Of a model that reads states or a sample rate beside its data this is the only form of them. None for other data.
    """
    if not isinstance(source, Mapping):
        if not isinstance(source, str | Path) or Path(source).suffix.lower() != ".npz" or not Path(source).is_file():
            return None
        source = load_arrays(Path(source), inputs)
    arrays = {str(name): np.asarray(array) for name, array in source.items()}
    if set(arrays) != {i.name for i in inputs}:
        return None
    lengths = {array.shape[0] if array.ndim else None for array in arrays.values()}
    return {i.name: arrays[i.name] for i in inputs} if len(lengths) > 1 and fits(arrays, inputs) else None


def _held(data: Data) -> Samples:
    batches = list(data)
    feeds = {name: np.concatenate([b.feeds[name] for b in batches]) for name in batches[0].feeds}
    labels = np.concatenate([b.labels for b in batches if b.labels is not None]) if data.labelled else None
    return Samples(
        len(next(iter(feeds.values()))),
        labels,
        (),
        lambda at: Batch({name: array[at] for name, array in feeds.items()}, None if labels is None else labels[at]),
    )


def _samples(
    source: DataSource, inputs: Sequence[ModelInput], preprocessing: Preprocessing | None, *, pixels: bool = False
) -> Samples:
    if isinstance(source, Mapping):
        _no_images(preprocessing, "arrays")
        return array_samples({str(k): np.asarray(v) for k, v in source.items()}, inputs, "the arrays given")
    assert isinstance(source, str | Path)
    path = Path(source)
    if not path.exists():
        raise ReadError("there is no such file or folder", where=str(source), fix=f"give {_KINDS}")
    if path.suffix.lower() in (".npz", ".npy"):
        _no_images(preprocessing, path)
        return array_samples(load_arrays(path, inputs), inputs, str(path))
    if path.is_file() and path.suffix.lower() != ".zip":
        raise UsageError("this kind of data cannot be read", where=str(path), fix=f"give {_KINDS}")
    if len(inputs) != 1:
        raise UsageError(
            f"images feed one input, and the model has {len(inputs)}",
            where=str(path),
            fix="give .npz or module:function",
        )
    reader = image_reader(inputs[0], preprocessing or Preprocessing())
    if pixels and reader.dtype.kind == "f":
        reader = replace(reader, dtype=np.dtype(np.uint8))
    return image_samples(path, inputs[0].name, reader, skip=not pixels)


def _no_images(preprocessing: Preprocessing | None, source: object) -> None:
    if preprocessing not in (None, Preprocessing()):
        raise UsageError("only images are preprocessed", where=str(source), fix="leave --mean, --std and the like out")


def _batch_size(found: Samples, inputs: Sequence[ModelInput], asked: int | None) -> int:
    fixed = inputs[0].batch
    if fixed:
        return fixed
    if asked is not None:
        return max(asked, 1)
    first = found.read(np.zeros(1, np.int64)).feeds
    elements = sum(array.size for array in first.values())
    return int(np.clip(_BATCH_ELEMENTS // max(elements, 1), 1, _LARGEST_BATCH))


def in_background(read: Callable[[np.ndarray], Batch], parts: Sequence[np.ndarray]) -> Iterator[Batch]:
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


# ---- functions


def _function(source: DataSource) -> Callable[[], Iterable[object]] | None:
    if isinstance(source, Path | Mapping):
        return None
    if not isinstance(source, str):
        return source
    if not names_function(source):
        return None
    return cast("Callable[[], Iterable[object]]", imported(source, "that yields data"))


def _stream(
    function: Callable[[], Iterable[object]], inputs: Sequence[ModelInput], samples: int | None, where: str
) -> Data:
    first = next(_called(function, where), None)
    if first is None:
        raise ReadError("the function yields nothing", where=where, fix="yield a batch of feeds")
    labelled = _batch(first, inputs, where).labels is not None
    fixed = inputs[0].batch

    def batches() -> Iterator[Batch]:
        seen = 0
        found = (_batch(item, inputs, where) for item in _called(function, where))
        for batch in _of_size(found, fixed) if fixed else found:
            yield batch
            seen += batch.size
            if samples is not None and seen >= samples:
                return

    return Data(None, (), labelled, batches, fixed=bool(fixed))


def _called(function: Callable[[], Iterable[object]], where: str) -> Iterator[object]:
    """What the user's function yields; raises ReadError with the last line of their traceback where it fails."""
    try:
        yield from function()
    except OnnxPruneError:
        raise
    except Exception as error:
        raise failed(error, where, "that yields data") from error


def _of_size(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same samples in batches of the size that a model fixes; a rest is left out, unless it is all there is."""
    waiting: Batch | None = None
    full = False
    for batch in batches:
        waiting = batch if waiting is None else _joined(waiting, batch)
        while waiting.size >= size:
            yield _part(waiting, np.arange(size))
            full, waiting = True, _part(waiting, np.arange(size, waiting.size))
    if waiting is not None and waiting.size and not full:
        yield _part(waiting, np.resize(np.arange(waiting.size), size))


def _joined(first: Batch, second: Batch) -> Batch:
    feeds = {name: np.concatenate([array, second.feeds[name]]) for name, array in first.feeds.items()}
    both = first.labels is not None and second.labels is not None
    return Batch(feeds, np.concatenate([first.labels, second.labels]) if both else None)  # type: ignore[list-item]


def _part(batch: Batch, at: np.ndarray) -> Batch:
    return Batch({n: a[at] for n, a in batch.feeds.items()}, None if batch.labels is None else batch.labels[at])


def _batch(item: object, inputs: Sequence[ModelInput], where: str) -> Batch:
    """What the function yielded: feeds, or (feeds, labels)."""
    feeds, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
    if not isinstance(feeds, Mapping):
        raise ReadError(
            f"the function yields a {type(feeds).__name__}",
            where=where,
            fix="yield {input name: array}, or that and labels",
        )
    arrays = check_feeds(feeds, inputs, where, whole=bool(inputs[0].batch))
    if any(array.ndim and not len(array) for array in arrays.values()):
        raise ReadError("the function yields an empty batch", where=where, fix="yield at least one sample")
    return Batch(arrays, None if labels is None else class_numbers(labels, where))
