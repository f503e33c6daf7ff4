"""Images of a folder, a zip or tar files, read in any order, in this process or in others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from ...passes.errors import ReadError, UsageError
from .archives import TarShards, is_shards, open_shards
from .preprocess import ImageReader
from .sources import LAYOUT, Batch, Samples, listing, pictures, read_image, stacked_images

Array = np.ndarray
_BROKEN = 10  # one image in so many may be unreadable


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Reads some of the files as a batch for the model input `name`; it can be sent to other processes.

    opened: a file's name -> its bytes; reader: makes arrays of them
    most: so many files may be unreadable: they are left out, and noted in `broken`
    """

    path: Path
    name: str
    files: tuple[str, ...]
    labels: Array | None
    opened: Callable[[str], IO[bytes]]
    reader: ImageReader
    most: int = 0
    broken: set[str] = field(default_factory=set)

    def __call__(self, indices: Array, crops: Array | None = None) -> Batch:
        """crops: of each image the seed of its random part (`ImageReader.part`), or all as they are prepared."""
        seeds = [None] * len(indices) if crops is None else crops.tolist()
        read = [(i, self.image(self.files[i], s)) for i, s in zip(indices.tolist(), seeds, strict=True)]
        found = [(index, pixels) for index, pixels in read if pixels is not None]
        kept, images = [index for index, _ in found], [pixels for _, pixels in found]
        stacked = stacked_images(images, self.path) if images else np.empty((0, 1), self.reader.dtype)
        return Batch({self.name: stacked}, None if self.labels is None else self.labels[kept])

    def image(self, file: str, crop: int | None = None) -> Array | None:
        """One image, None for one of the few that cannot be read. Raises ReadError where there are more."""
        try:
            return read_image(file, self.opened, self.reader.part(crop), self.path)
        except ReadError:
            self.broken.add(file)
            if len(self.broken) > self.most:
                raise
        return None


def image_samples(path: Path, name: str, reader: ImageReader, *, skip: bool = True) -> Samples:
    """The images of a folder, zip, tar or folder of tars, for the model input `name`; in several folders: of classes.

    Classes are the folders in alphabetical order, or the numbers that a WebDataset says. skip: one image in ten that
    cannot be read is left out, and counted; a batch of them is smaller by those. The first ones are read to see that
    all is well. Raises ReadError or UsageError where there is no image, where more cannot be read, or where some lie in
    class folders and some do not.
    """
    shards = open_shards(path) if is_shards(path) else None
    names, opened = listing(path) if shards is None else (shards.names(), shards)
    files = pictures(names)
    if not files:
        raise ReadError("there is no image", where=str(path), fix=LAYOUT)
    most = max(1, len(files) // _BROKEN) if skip and len(files) > 1 else 0
    first = ImageFiles(path, name, tuple(files), None, opened, reader, most)
    start = 0
    while start < len(files) and first.image(files[start]) is None:
        start += 1
    files = files[start:]
    labels, classes = _classes(files, path, shards)
    read = ImageFiles(path, name, tuple(files), labels, opened, reader, most, first.broken)
    return Samples(len(files), labels, classes, read, lambda: len(first.broken), cropped=read)


def _classes(files: Sequence[str], path: Path, shards: TarShards | None) -> tuple[Array | None, tuple[str, ...]]:
    numbers = None if shards is None else shards.numbers(files)
    if numbers is not None:
        return numbers, ()
    written = [name.rpartition("/")[0] for name in files]
    clean = {parent: str(PurePosixPath(parent)) for parent in set(written)}
    parents = [clean[parent] for parent in written]  # a PurePosixPath of each of 50,000 files: 2 s
    folders = sorted(set(parents))
    if len(folders) == 1:
        return None, ()
    if "." in folders:
        raise UsageError("some images lie in class folders and some do not", where=str(path), fix=LAYOUT)
    number = {folder: i for i, folder in enumerate(folders)}
    return np.array([number[p] for p in parents], np.int64), tuple(folders)
