"""Where samples come from: images in folders and archives, arrays in files."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ...passes.errors import ReadError, UsageError
from ...passes.graph.reading import check_regular
from .archives import ZipFiles
from .inputs import ModelInput, check_feeds
from .preprocess import ImageReader
from .random_feeds import Feeds

# Of zipfile, on files that are no archives, or encrypted (RuntimeError), or compressed in a way that it does not know.
ZIP_FAILURES = (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, NotImplementedError, zlib.error, KeyError)
ZIP_FAILURES += (UnicodeDecodeError,)  # names in front of the members
_NPY_FAILURES = (OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError, SyntaxError, tokenize.TokenError)
LABELS = ("label", "labels")  # keys of an .npz that hold the classes
_HIDDEN = (".", "__MACOSX")  # how parts of names begin that operating systems hide
_IMAGES = frozenset([".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"])
LAYOUT = "put images in one folder a class, or all in one folder where classes are not needed"


class Batch(NamedTuple):
    """Some samples: an array for each input of the model, and their classes, int64 (n,), where they are known."""

    feeds: Feeds
    labels: np.ndarray | None

    @property
    def size(self) -> int:
        """How many samples it holds."""
        return len(next(iter(self.feeds.values())))


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples that can be read in any order: `read(indices)` is the batch of those.

    labels: int64 (count,) or None

    broken: how many could not be read so far, and were left out; largest: the largest magnitude of each of these
    samples, for arrays; cropped: `read` with a seed a sample, which draws the part of its image (`ImageReader.part`).
    """

    count: int
    labels: np.ndarray | None
    classes: tuple[str, ...]
    read: Callable[[np.ndarray], Batch]
    broken: Callable[[], int] = lambda: 0
    largest: Callable[[np.ndarray], np.ndarray] | None = None
    cropped: Callable[[np.ndarray, np.ndarray | None], Batch] | None = None

    def at(self, chosen: np.ndarray) -> Samples:
        """Some of them, in this order."""
        largest, cropped = self.largest, self.cropped
        return replace(
            self,
            count=len(chosen),
            labels=None if self.labels is None else self.labels[chosen],
            read=lambda indices: self.read(chosen[indices]),
            largest=None if largest is None else lambda indices: largest(chosen[indices]),
            cropped=None if cropped is None else Chosen(cropped, chosen),
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """Reads some of the samples by their numbers among the chosen ones; it can be sent where `cropped` can."""

    cropped: Callable[[np.ndarray, np.ndarray | None], Batch]
    chosen: np.ndarray

    def __call__(self, indices: np.ndarray, crops: np.ndarray | None = None) -> Batch:
        return self.cropped(self.chosen[indices], crops)


# ---- images


def read_image(file: str, opened: Callable[[str], IO[bytes]], reader: ImageReader, path: Path) -> np.ndarray:
    """One image. Raises ReadError for a file that is not an image, or cannot be opened."""
    try:
        with opened(file) as stream:
            return reader(stream)
    except (OSError, EOFError, *ZIP_FAILURES) as error:
        raise ReadError(
            "an image cannot be read", where=f"{path}, {file}: {error}", fix="remove it, or repair it"
        ) from error


def listing(path: Path) -> tuple[list[str], Callable[[str], IO[bytes]]]:
    """The files of a folder or zip in alphabetical order, and what opens one of them. Raises ReadError."""
    if path.is_file():
        try:
            archive = ZipFiles(path)
        except (OSError, *ZIP_FAILURES) as error:
            raise ReadError("this is not a zip archive", where=f"{path}: {error}", fix=LAYOUT) from error
        return archive.names(), archive
    found = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir())
    return found, partial(_open_regular, path)


def _open_regular(path: Path, name: str) -> IO[bytes]:
    check_regular(path / name)
    return (path / name).open("rb")


def pictures(names: Iterable[str]) -> list[str]:
    """Image files in alphabetical order, without what operating systems hide (.DS_Store, __MACOSX)."""
    hidden: dict[str, bool] = {}  # by folder: of 50,000 names, all parts of each took half a second
    found: list[str] = []
    for name in names:
        folder, _, last = name.rpartition("/")
        _, dot, ending = last.rpartition(".")
        if dot and f".{ending.lower()}" in _IMAGES and not last.startswith(_HIDDEN):
            if folder not in hidden:
                hidden[folder] = any(part.startswith(_HIDDEN) and part != "." for part in folder.split("/"))
            if not hidden[folder]:
                found.append(name)
    return sorted(found)


def stacked_images(images: list[np.ndarray], path: Path) -> np.ndarray:
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ReadError(
            "the images differ in size, and the model fixes none",
            where=f"{path}: {', '.join(map(str, sorted(shapes)))}",
            fix="give --resize or --crop",
        )
    return np.stack(images)


# ---- arrays


def array_samples(
    arrays: Mapping[str, np.ndarray], inputs: Sequence[ModelInput], where: str, *, targets: bool = False
) -> Samples:
    """Samples along the first axis of arrays named like the model's inputs; `label` or `labels` are their classes.

    targets: these may be arrays of any kind, a row a sample.
    """
    names = {i.name for i in inputs}
    key = next((k for k in LABELS if k in arrays and k not in names), None)
    feeds = check_feeds({k: v for k, v in arrays.items() if k != key}, inputs, where, whole=True)
    lengths = {k: len(v) if v.ndim else 0 for k, v in arrays.items()}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        words = ", ".join(f"{k} has {n}" for k, n in lengths.items())
        raise ReadError(
            "the arrays do not hold the same number of samples", where=f"{where}: {words}", fix="one row a sample"
        )
    labels = None if key is None else arrays[key] if targets else class_numbers(arrays[key], where)

    def read(indices: np.ndarray) -> Batch:
        return Batch({k: v[indices] for k, v in feeds.items()}, None if labels is None else labels[indices])

    return Samples(next(iter(lengths.values())), labels, (), read, largest=partial(_largest, feeds))


def _largest(feeds: Feeds, indices: np.ndarray) -> np.ndarray:
    """The largest magnitude of each sample over its floats, NaN where one is not a number."""
    found = np.zeros(len(indices))
    for array in feeds.values():
        if array.dtype.kind == "f":
            for place, index in enumerate(indices.tolist()):
                row = np.abs(array[index], dtype=np.float64).ravel()
                found[place] = np.maximum(found[place], row.max(initial=0))
    return found


def class_numbers(labels: np.ndarray, where: str) -> np.ndarray:
    """Labels as int64 (n,). Raises ReadError where they are something else."""
    labels = np.asarray(labels)
    if not labels.ndim or labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise ReadError(
            f"labels must be one class number a sample, not {labels.dtype.name} {labels.shape}",
            where=where,
            fix="give integers from 0, in the order of the model's outputs; leave the array out where it holds other "
            "targets (masks, numbers): then the model's own outputs count",
        )
    return labels.reshape(-1).astype(np.int64)


def _archived(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz. Raises TypeError for another file, and for members that are no arrays."""
    opened = np.load(path, allow_pickle=False)
    if isinstance(opened, np.ndarray):
        raise TypeError("this holds one array: call it .npy")
    with opened as archive:
        arrays = {name: archive[name] for name in archive.files}
    other = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
    if other is not None:
        raise TypeError(f"'{other}' in it is no array")
    return arrays


def load_arrays(path: Path, inputs: Sequence[ModelInput]) -> dict[str, np.ndarray]:
    """The arrays of an .npz, or that of an .npy under the name of the only input, mapped into memory."""
    check_regular(path)
    try:
        with np.errstate(all="ignore"):  # sizes that overflow are refused in numpy's next line
            if path.suffix.lower() == ".npz":
                return _archived(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise TypeError("this is an .npz: call it so")
    except (*_NPY_FAILURES, *ZIP_FAILURES) as error:
        raise ReadError(
            "the arrays cannot be read", where=f"{path}: {error}", fix="write it with numpy.save"
        ) from error
    if len(inputs) != 1:
        raise UsageError(
            f"an .npy holds one array, and the model has {len(inputs)} inputs",
            where=str(path),
            fix="give an .npz with an array for each input",
        )
    return {inputs[0].name: array}
