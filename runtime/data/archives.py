"""Files in archives, opened one at a time, by any thread and any process."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from ...passes.errors import ReadError

_CLASS = ".cls"  # the class number of the sample of the same name, as WebDataset writes it
_LAYOUT = "give tar files of images in class folders, one tar a class, or pairs such as 000017.jpg and 000017.cls"


class ZipFiles:
    """The files of a zip. Each process opens it for itself: they would move one another's place in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = os.getpid()
        self._archive: zipfile.ZipFile | None = zipfile.ZipFile(path)

    @property
    def archive(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():
            self._archive, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._archive

    def names(self) -> list[str]:
        return sorted(self.archive.namelist())

    def __call__(self, name: str) -> IO[bytes]:
        return self.archive.open(name)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_process": -1, "_archive": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)


@dataclass(frozen=True, slots=True)
class TarShards:
    """The files of tar files, which are read once from the first to the last header to know where each lies.

    places: name -> (shard, offset, bytes); where tars are flat and say no classes, the tar's own name is the folder
    classes: name -> class number, where each image has a file of its own that says it
    """

    shards: tuple[Path, ...]
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)

    def names(self) -> list[str]:
        return sorted(self.places)

    def __call__(self, name: str) -> IO[bytes]:
        shard, offset, size = self.places[name]
        with self.shards[shard].open("rb") as file:
            file.seek(offset)
            stream = io.BytesIO(file.read(size))
        stream.name = name
        return stream

    def numbers(self, names: Iterable[str]) -> np.ndarray | None:
        """(n,) int64, the classes of these images, None where no file says them. Raises ReadError for a gap."""
        if not self.classes:
            return None
        missing = next((name for name in names if _stem(name) not in self.classes), None)
        if missing is not None:
            raise ReadError("an image has no class", where=f"{missing}: there is no {_CLASS} of its name", fix=_LAYOUT)
        return np.array([self.classes[_stem(name)] for name in names], np.int64)


def is_shards(path: Path) -> bool:
    """Whether the path is a tar file, or a folder of nothing but tar files."""
    if path.is_file():
        return path.suffix.lower() == ".tar"
    tars = bool(next(path.glob("*.tar"), None)) if path.is_dir() else False
    return tars and all(_is_shard(file) for file in path.iterdir())


def open_shards(path: Path) -> TarShards:
    """Raises ReadError for what is no tar file, or two files of one name."""
    shards = (path,) if path.is_file() else tuple(sorted(path.glob("*.tar")))
    found = TarShards(shards)
    flat = _flat_tars(shards)
    for number, shard in enumerate(shards):
        _index(found, number, shard.stem if flat else "")
    return found


def _index(found: TarShards, number: int, folder: str) -> None:
    shard = found.shards[number]
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile():
                    _note(found, number, archive, member, folder)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ReadError("this is not a tar archive", where=f"{shard}: {error}", fix=_LAYOUT) from error


def _is_shard(file: Path) -> bool:
    return (
        file.suffix.lower() == ".tar" or file.name.startswith(".") or file.suffix.lower() in (".json", ".txt", ".idx")
    )


def _flat_tars(shards: tuple[Path, ...]) -> bool:
    """Whether there are several tars whose first files lie in no folder and bring no classes: one tar a class."""
    if len(shards) < 2:
        return False
    try:
        with tarfile.open(shards[0], "r:") as archive:
            first = [member.name for member, _ in zip(archive, range(8), strict=False) if member.isfile()]
    except (OSError, tarfile.TarError, ValueError):
        return False
    names = [PurePosixPath(name) for name in first]
    return bool(names) and all(len(n.parts) == 1 for n in names) and not any(n.suffix == _CLASS for n in names)


def _note(found: TarShards, number: int, archive: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> None:
    name = PurePosixPath(folder, member.name).as_posix()
    if name.endswith(_CLASS):
        stream = archive.extractfile(member)
        text = b"" if stream is None else stream.read(32)
        if not re.fullmatch(rb"\s*[0-9]{1,9}\s*", text):
            raise ReadError("a class is not a whole number", where=f"{found.shards[number]}, {name}", fix=_LAYOUT)
        found.classes[_stem(name)] = int(text)
        return
    if name in found.places:
        raise ReadError("two files have one name", where=f"{found.shards[number]}, {name}", fix=_LAYOUT)
    found.places[name] = (number, member.offset_data, member.size)


def _stem(name: str) -> str:
    """The name up to the first dot of its last part: the key of a sample in WebDataset."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.split('.')[0]}"
