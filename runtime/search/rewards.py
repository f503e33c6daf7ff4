"""What networks of a search were worth, kept as they are measured: a search that is stopped goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..data.sources import Batch
from ..latency.cache import cache_folder

Array = np.ndarray
_MOST = 32  # searches that are kept; the oldest go


class Kept:
    """Widths -> error, in memory and in a file of the user's cache folder; where that cannot be written, in memory.

    key: what errors depend on besides the widths (`search_key`); None keeps no file.
    """

    def __init__(self, key: str | None) -> None:
        folder = cache_folder()
        self._file = None if key is None or folder is None else folder / "searches" / f"{key}.jsonl"
        self._known = {} if self._file is None else _read(self._file)
        self.found = len(self._known)

    def __call__(self, widths: Array) -> float | None:
        """What is known of these widths."""
        return self._known.get(_name(widths))

    def keep(self, widths: Array, error: float) -> None:
        """Know them from now on."""
        self._known[_name(widths)] = error
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if not self._file.exists():
                self._file.parent.mkdir(parents=True, exist_ok=True)
                _thin(self._file.parent)
            elif not self._file.is_file():  # a pipe waits for a reader
                return
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps([_name(widths), error])}\n")  # a kill may have left half a line before it


def search_key(batches: Iterable[Batch], arrays: Iterable[Array], words: object) -> str:
    """Of the samples that errors are measured on, of arrays (moments), and of anything in words."""
    digest = hashlib.sha256(json.dumps(words, default=str, sort_keys=True).encode())
    for batch in batches:
        labels = [] if batch.labels is None else [batch.labels]
        for array in [*(batch.feeds[name] for name in sorted(batch.feeds)), *labels]:
            digest.update(np.ascontiguousarray(array).tobytes())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


def _name(widths: Array) -> str:
    return ",".join(map(str, widths.tolist()))


def _read(file: Path) -> dict[str, float]:
    """Whole lines; a kill may have left half of the last one."""
    known: dict[str, float] = {}
    with contextlib.suppress(OSError):
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                name, error = json.loads(line)
                if 0 <= float(error) <= 1:
                    known[str(name)] = float(error)
    return known


def _thin(folder: Path) -> None:
    files = sorted(folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
    for old in files[: max(len(files) - _MOST + 1, 0)]:
        old.unlink(missing_ok=True)
