"""Arrays that are put away for later: in memory while they are small together, else as files of a scratch folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...passes.graph.scratch import scratch_folder

Array = np.ndarray
Held = Array | Path


class Shelf:
    """Keeps arrays, the newest in memory, at most `limit` bytes of them.

    Files are read and written whole: pages of mapped ones would count as memory. A context, whose files go at its end.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._number = limit, 0, 0
        self._context = None
        self._folder: Path | None = None

    def put(self, array: Array) -> Held:
        """What `get` gives the array back for."""
        if self._used + array.nbytes <= self._limit:
            self._used += array.nbytes
            return array
        if self._folder is None:
            self._context = scratch_folder()
            self._folder = self._context.__enter__()
        self._number += 1
        path = self._folder / f"{self._number}.npy"
        np.save(path, array)
        return path

    def get(self, held: Held) -> Array:
        """The array."""
        return held if isinstance(held, np.ndarray) else np.load(held)

    def drop(self, held: Held) -> None:
        """Let go of what nobody asks for again."""
        if isinstance(held, np.ndarray):
            self._used -= held.nbytes
        else:
            held.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the files."""
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = self._folder = None
