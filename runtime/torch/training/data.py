"""Training data in torch: decoded once and held while it fits, drawn in an order that follows from seed and epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ....passes.errors import UsageError
from ...data.inputs import ModelInput
from ...data.open import DataSource, choose, in_background, open_samples
from ...data.preprocess import ImageReader, Preprocessing
from ...data.sources import Batch, Samples
from ...progress import Stage, silent
from .augment import Draws, draw, holed, moved
from .losses import Labels
from .recipe import Recipe
from .workers import read_parts

_SHARE_OF_MEMORY = 0.5  # of what is free: what the decoded samples may take
_DECODED = 256  # samples decoded at a time
_COLOURS = (1, 3)  # channels of an image


@dataclass(frozen=True, slots=True)
class Share:
    """The samples of a batch that one process needs, and what is done to them; with mixup the partners come behind."""

    indices: np.ndarray
    draws: Draws = field(default_factory=Draws)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Samples in any order, as batches for the model.

    samples: all of them
    names: the model's inputs, in order
    image: which input is augmented, None for none
    size: height and width of it
    channels_last: where its channels stand
    reader: how pixels become what the model reads, if pixels are held
    words: the augmentation
    batch: samples a batch, where the model fixes it
    device: where batches go
    workers: processes that decode images which are not held, 0 for one a core
    """

    samples: Samples
    names: tuple[str, ...]
    image: str | None
    size: tuple[int, int]
    channels_last: bool
    reader: ImageReader | None
    words: tuple[str, ...]
    batch: int | None
    device: torch.device
    workers: int = 0

    @property
    def classes(self) -> int | None:
        """The largest label + 1, None where there are no labels."""
        return None if self.samples.labels is None else int(self.samples.labels.max()) + 1

    def batches(self, shares: Sequence[Share]) -> Iterator[tuple[list[Tensor], Labels | None]]:
        """Inputs and labels of each, while the next ones are being read."""
        parts = [(s.indices, None if s.draws.part is None else s.draws.part.numpy()) for s in shares]
        read = read_parts(self.samples, parts, self.workers)
        for batch, share in zip(read, shares, strict=True):
            yield self._inputs(batch, share.draws), self._labels(batch.labels, share.draws)

    def _inputs(self, batch: Batch, draws: Draws) -> list[Tensor]:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(batch.feeds[name])) for name in self.names}
        if self.image is not None:
            tensors[self.image] = self._image(tensors[self.image], draws)
        placed = (tensors[name].to(self.device) for name in self.names)
        return [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in placed]

    def _image(self, images: Tensor, draws: Draws) -> Tensor:
        images = images.movedim(-1, 1) if self.channels_last else images
        images = moved(images.to(self.device), draws)
        if self.reader is not None:
            factor, offset = (_per_channel(v, self.device) for v in (self.reader.factor, self.reader.offset))
            images = images.to(torch.float32) * factor - offset
        images = holed(images, draws)
        if draws.partner is not None:
            own, other = images.chunk(2)
            images = draws.share * own + (1 - draws.share) * other
        return images.movedim(1, -1) if self.channels_last else images

    def _labels(self, labels: np.ndarray | None, draws: Draws) -> Labels | None:
        if labels is None:
            return None
        classes = torch.from_numpy(labels).to(self.device)
        if draws.partner is None:
            return Labels(classes)
        own, other = classes.chunk(2)
        return Labels(own, other, draws.share)

    def drawn(self, count: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """About so many samples in batches of one size, for something to be measured on: one batch at least."""
        size = min(size, self.samples.count)
        chosen = rng.permutation(self.samples.count)[: max(count // size, 1) * size]
        return list(chosen[: len(chosen) // size * size].reshape(-1, size))

    def share(self, indices: np.ndarray, part: slice, rng: np.random.Generator) -> Share:
        """This process's part of the batch of these samples; the numbers are drawn for all of it."""
        draws = draw(self.words, len(indices), self.size, rng) if self.words else Draws()
        rows = torch.arange(len(indices))[part]
        if draws.partner is not None:
            rows = torch.cat([rows, draws.partner[rows]])
        return Share(indices[rows.numpy()], draws.of(rows))


def training_data(
    source: DataSource,
    inputs: Sequence[ModelInput],
    preprocessing: Preprocessing | None,
    recipe: Recipe,
    device: torch.device,
    progress: Stage = silent,
) -> TrainingData:
    """Open, decode and hold the samples; beyond half of the free memory they are read again in every epoch.

    Raises UsageError where images are to be augmented that are none.
    """
    samples, reader = open_samples(source, inputs, preprocessing)
    if recipe.train_samples:
        samples = samples.at(choose(samples.count, samples.labels, recipe.train_samples, recipe.seed))
    shape = samples.read(np.zeros(1, np.int64)).feeds[inputs[0].name].shape
    words = recipe.augment if recipe.augment is not None else ("crop", "flip") if reader is not None else ()
    if words and (len(inputs) != 1 or len(shape) != 4):
        raise UsageError(
            "only images are augmented: one input of four axes (batch, channels, height, width)",
            where=str(inputs[0]),
            fix="leave --augment out",
        )
    image = len(inputs) == 1 and len(shape) == 4
    last = reader.layout == "NHWC" if reader else image and shape[3] in _COLOURS and shape[1] not in _COLOURS
    if "resized-crop" in words and samples.cropped is None:
        raise UsageError(
            "random parts are taken of image files",
            where="--augment resized-crop",
            fix="give --train as images in a folder, zip or tar, or take --augment crop",
        )
    return TrainingData(
        samples=samples if "resized-crop" in words else _held(samples, progress),
        names=tuple(i.name for i in inputs),
        image=inputs[0].name if image else None,
        size=(shape[1], shape[2]) if last else (shape[-2], shape[-1]),
        channels_last=last,
        reader=reader,
        words=words,
        batch=inputs[0].batch,
        device=device,
        workers=recipe.workers,
    )


def _per_channel(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device).view(1, -1, 1, 1)


def _held(samples: Samples, progress: Stage) -> Samples:
    """The samples decoded, if they fit."""
    first = samples.read(np.zeros(1, np.int64))
    if sum(array.nbytes for array in first.feeds.values()) * samples.count > _SHARE_OF_MEMORY * _free_memory():
        return samples
    feeds = {name: np.empty((samples.count, *a.shape[1:]), a.dtype) for name, a in first.feeds.items()}
    parts = [np.arange(s, min(s + _DECODED, samples.count)) for s in range(0, samples.count, _DECODED)]
    for part, batch in zip(parts, in_background(samples.read, parts), strict=True):
        for name, array in batch.feeds.items():
            feeds[name][part] = array
        progress(f"reading the training data: {part[-1] + 1} of {samples.count} samples")

    def read(indices: np.ndarray) -> Batch:
        labels = samples.labels
        return Batch({name: a[indices] for name, a in feeds.items()}, None if labels is None else labels[indices])

    return replace(samples, read=read, cropped=None)


def _free_memory() -> float:
    """Bytes; where the system does not say it, 4 GB."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 4e9
