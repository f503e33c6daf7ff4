"""Calibration and test data: batches of feeds for a model, read in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...passes.errors import ReadError, UsageError
from .aside import parted, plausible, without_every_eighth
from .batches import Data, in_background, of_size
from .given import KINDS, DataSource, known_source
from .images import image_samples
from .inputs import ModelInput, check_common_axis, fits
from .preprocess import ImageReader, Preprocessing, image_reader
from .random_feeds import Feeds
from .sources import Batch, Samples, array_samples, load_arrays
from .streams import stream

# A batch of photographs is about 8, of CIFAR images 64: with 128 calibrating ResNet-56 took 751 MB in the place of 470,
# and no less time.
_BATCH_ELEMENTS, LARGEST_BATCH = 1 << 20, 64


def open_data(  # noqa: PLR0913 - each is a choice of its own
    source: DataSource,
    inputs: Sequence[ModelInput],
    preprocessing: Preprocessing | None = None,
    *,
    samples: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    held_out: int = 0,
    targets: bool = False,
) -> Data:
    """Open data for a model with these inputs (`inputs.model_inputs`).

    source: see `given.DataSource`; as files a folder or zip of images, in one folder a class or flat; .npz with an
    array for each input and maybe `label`; .npy for models with one input.
    samples: use so many, drawn from `seed`, of each class the same number where there are labels, in random order; of a
    function the first ones. batch: samples a batch, unless the model fixes it, when a rest that fills none is left out.
    held_out: so many samples more, or an eighth where there are no more, are none of the data but their `held_out`.
    targets: whether labels may be anything, a row a sample, and not class numbers alone: then they balance nothing.
    Arrays whose numbers are not finite, or a thousand times those of the others, are left out, one in ten at most.
    Raises UsageError or ReadError where the data are not what the model asks for, before anything runs.
    """
    if samples is not None and samples < 1:
        raise UsageError(
            f"--samples {samples}: at least one is needed", where="--samples", fix="leave it out to use all"
        )
    known = known_source(source, inputs)
    check_common_axis(inputs)
    if not isinstance(known, Path | Mapping):
        _no_images(preprocessing, known)
        streamed = stream(known, inputs, samples, targets=targets)
        return without_every_eighth(streamed, held_out, inputs[0].batch or 1) if held_out else streamed
    found = _samples(known, inputs, preprocessing, targets=targets)
    classes = None if targets else found.labels
    order = choose(found.count, classes, None if samples is None else samples + held_out, seed)
    whole, left_out = plausible(order, found.largest)
    order, rest = parted(whole, samples, held_out, inputs[0].batch or 1, seed)
    data = batched(found, order, inputs, batch, left_out)
    return replace(data, held_out=batched(found, rest, inputs, batch, left_out)) if len(rest) else data


def batched(
    found: Samples, order: np.ndarray, inputs: Sequence[ModelInput], batch: int | None = None, left_out: int = 0
) -> Data:
    """The samples in this order, in batches: of the size that the model fixes, else of `batch`, else of what fits."""
    wanted, size = inputs[0], _batch_size(found, inputs, batch)
    if wanted.batch and len(order) < size and found.labels is None:
        order = np.resize(order, size)  # nothing is counted that comes twice: moments are means
    cut = len(order) - (len(order) % size if wanted.batch else 0)
    if not cut:
        raise ReadError(
            f"{len(order)} labelled samples do not fill one batch of {size}, which the model fixes",
            where=str(wanted),
            fix="give more samples",
        )
    parts = [order[start : start + size] for start in range(0, len(order), size)]

    def batches() -> Iterator[Batch]:
        whole = (batch for batch in in_background(found.read, parts) if batch.size)
        return of_size(whole, wanted.batch) if wanted.batch else whole

    def picking(mine: Callable[[int], bool]) -> Iterator[Batch | int]:
        read = in_background(found.read, [part for number, part in enumerate(parts) if mine(number)])
        for number, part in enumerate(parts):
            yield next(read) if mine(number) else len(part)

    def broken() -> int:
        return found.broken() + left_out

    picked = None if wanted.batch else picking
    return Data(cut, found.classes, found.labels is not None, batches, bool(wanted.batch), broken, picking=picked)


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
    known = known_source(source, inputs)
    if not isinstance(known, Path | Mapping):
        _no_images(preprocessing, known)
        return _held(stream(known, inputs, None)), None
    found = _samples(known, inputs, preprocessing, pixels=True)
    held = found.read(np.zeros(1, np.int64)).feeds[inputs[0].name].dtype
    pixels = held.kind == "u" and inputs[0].dtype.kind == "f"
    return found, image_reader(inputs[0], preprocessing or Preprocessing()) if pixels else None


def example_input(source: DataSource, inputs: Sequence[ModelInput]) -> Feeds | None:
    """Arrays that are one input of the model and no samples: their first axes differ, or some have none.

    Of a model that reads states or a sample rate beside its data this is the only form of them. None for other data.
    """
    known = known_source(source, inputs)
    if isinstance(known, Path) and known.suffix.lower() == ".npz" and known.is_file():
        known = load_arrays(known, inputs)
    if not isinstance(known, Mapping):
        return None
    arrays = dict(known)
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
    path: Path | Mapping[str, np.ndarray],
    inputs: Sequence[ModelInput],
    preprocessing: Preprocessing | None,
    *,
    pixels: bool = False,
    targets: bool = False,
) -> Samples:
    if isinstance(path, Mapping):
        _no_images(preprocessing, "arrays")
        return array_samples(path, inputs, "the arrays given", targets=targets)
    if not path.exists():
        raise ReadError("there is no such file or folder", where=str(path), fix=f"give {KINDS}")
    if path.suffix.lower() in (".npz", ".npy"):
        _no_images(preprocessing, path)
        return array_samples(load_arrays(path, inputs), inputs, str(path), targets=targets)
    if path.is_file() and path.suffix.lower() not in (".zip", ".tar"):
        raise UsageError("this kind of data cannot be read", where=str(path), fix=f"give {KINDS}")
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


def _batch_size(samples: Samples, inputs: Sequence[ModelInput], asked: int | None) -> int:
    fixed = inputs[0].batch
    if fixed:
        return fixed
    if asked is not None:
        return max(asked, 1)
    first = samples.read(np.zeros(1, np.int64)).feeds
    elements = sum(array.size for array in first.values())
    return int(np.clip(_BATCH_ELEMENTS // max(elements, 1), 1, LARGEST_BATCH))
