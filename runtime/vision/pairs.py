"""Images and the files that say what is on them, in the usual folders: side by side, VOC, ADE20K, Cityscapes, YOLO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from ...passes.errors import ReadError
from ..data.batches import Data
from ..data.inputs import ModelInput
from ..data.open import batched, choose
from ..data.preprocess import Frame, ImageReader, Preprocessing, image_reader
from ..data.sources import ZIP_FAILURES, Batch, Samples, listing, pictures, read_image, stacked_images

Opener = Callable[[str], IO[bytes]]
# Folders that hold images alone; beside them lie those with what is on the images.
_IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit")
_BESIDE = ("masks", "labels", "annotations", "Annotations", "SegmentationClass")
_SPLITS = ("train", "val", "test")  # CamVid: val/ and valannot/


class Folder:
    """The files of a folder or zip, by name; below: of which folder in it the images are taken."""

    def __init__(self, path: Path, below: str = "") -> None:
        """Raises ReadError where there is nothing, or it is neither a folder nor a zip."""
        if not path.exists():
            raise ReadError("there is no such file or folder", where=str(path), fix="give a folder or a zip")
        self.path, self._below = path, below
        self.names, self.opened = listing(path)

    @classmethod
    def around(cls, path: Path) -> Folder:
        """The folder; of one such as data/images/val, data, with the images of that part."""
        parts = path.absolute().parts
        number = next((n for n, part in enumerate(parts) if part in _IMAGES and n + 3 > len(parts) - 1), None)
        whole = any((path / name).is_dir() for name in (*_IMAGES, *_BESIDE))
        if path.is_dir() and number is not None and not whole:
            return cls(Path(*parts[:number]), "/".join(parts[number:]) + "/")
        return cls(path)

    def images(self) -> list[str]:
        """The names of the images that are asked for."""
        return [name for name in pictures(self.names) if name.startswith(self._below)]

    def read(self, name: str) -> bytes:
        """A file. Raises ReadError."""
        try:
            with self.opened(name) as stream:
                return stream.read()
        except (OSError, EOFError, *ZIP_FAILURES) as error:
            raise ReadError("a file cannot be read", where=f"{self.path}, {name}: {error}", fix="repair it") from error

    def lines(self, name: str) -> list[str]:
        """The lines of a text, without empty ones."""
        text = self.read(name).decode("utf-8", errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def listed(self, kind: str, images: Sequence[str]) -> list[str]:
        """Those images that VOC's list of validation images names, ImageSets/KIND/val.txt; all where there is none."""
        found = [name for name in self.names if name.endswith(f"ImageSets/{kind}/val.txt")]
        if not found:
            return list(images)
        wanted = set(self.lines(found[0]))
        return [name for name in images if PurePosixPath(name).stem in wanted]


def partners(
    images: Iterable[str], others: Iterable[str], folders: Sequence[str], endings: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Image -> the file of the same place and stem in one of the folders, for the images that have one.

    endings: end of an image's stem -> what may stand in its place, "" for as it is. Images and files in one folder are
    told apart by their type alone.
    """
    by_stem = {str(PurePosixPath(name).with_suffix("")): name for name in others}
    found = {}
    for image in images:
        for place in _places(PurePosixPath(image).with_suffix(""), folders, endings):
            if place in by_stem and by_stem[place] != image:
                found[image] = by_stem[place]
                break
    return found


def _places(stem: PurePosixPath, folders: Sequence[str], endings: Mapping[str, Sequence[str]]) -> Iterable[str]:
    names = [
        stem.name.removesuffix(end) + other for end in endings if stem.name.endswith(end) for other in endings[end]
    ]
    parts = stem.parts[:-1]
    for number, part in enumerate(parts):
        beside = folders if part in _IMAGES else (f"{part}annot", f"{part}_labels") if part in _SPLITS else ()
        for folder in beside:
            for name in names:
                yield str(PurePosixPath(*parts[:number], folder, *parts[number + 1 :], name))
    yield from (str(PurePosixPath(*parts, name)) for name in names if name)


def frame_reader(wanted: ModelInput, preprocessing: Preprocessing | None) -> ImageReader:
    """What reads images whole: where nothing is said of resize and crop they are stretched to the model's size."""
    chosen = preprocessing or Preprocessing()
    reader = image_reader(wanted, chosen)
    if chosen.resize is None and chosen.crop is None and reader.size is not None:
        return ImageReader(
            reader.mode, reader.layout, reader.size, reader.size, reader.factor, reader.offset, reader.dtype
        )
    return reader


def target_batches(
    folder: Folder,
    images: Sequence[str],
    target: Callable[[str, Callable[[int, int], Frame]], object],
    wanted: ModelInput,
    reader: ImageReader,
    samples: int | None = None,
    seed: int = 0,
) -> Data:
    """Batches of these images, the labels of which are the targets, one object an image.

    target: (image, (height, width) -> what of it the model sees) -> what is known of it. The first image and target are
    read at once, so that a fault of all is said before the work.
    """

    def read(indices: np.ndarray) -> Batch:
        names = [images[int(i)] for i in indices]
        pixels = [read_image(name, folder.opened, reader, folder.path) for name in names]
        targets = np.empty(len(names), object)
        for place, name in enumerate(names):
            targets[place] = target(name, reader.frame)
        return Batch({wanted.name: stacked_images(pixels, folder.path)}, targets)

    found = Samples(len(images), None, (), read)
    order = choose(found.count, None, samples, seed)
    size = None if reader.size is not None else 1  # images of sizes of their own go one by one
    data = batched(found, order, [wanted], size)
    return Data(data.samples, (), labelled=True, batches=data.batches, fixed=data.fixed)
