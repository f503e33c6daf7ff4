"""Rows on disk: each is written whole when it is finished, and claimed by the one process that makes it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...passes.errors import UsageError
from ...passes.graph.files import write_text
from ...passes.kept import kept_json, kept_text, unreadable

Scores = tuple[float, float]  # top-1 and top-5


@dataclass(frozen=True, slots=True)
class Row:
    """One method; pairs of macs, params and milliseconds are (before, after).

    before, cut, tuned: top-1 and top-5 of the original, right after the cut, after the fine-tuning; None where there
        was no such moment (methods that cut and train in turns are never only cut) or no fine-tuning
    words: criterion, allocation, reconstruction
    minutes: of the whole row, on this machine
    """

    name: str
    words: str
    before: Scores
    cut: Scores | None
    tuned: Scores | None
    macs: tuple[int, int]
    params: tuple[int, int]
    milliseconds: tuple[float, float] | None
    minutes: float
    published: dict[str, float | bool | None] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A method that has ended with an error, in its three parts, and so has no figures."""

    name: str
    what: str
    where: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of one comparison.

    key: its terms
    """

    folder: Path
    key: str

    def open(self) -> None:
        """Make the folder. Raises UsageError where it holds another comparison."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                "the folder cannot be made", where=f"{self.folder}: {error}", fix="give another with -o"
            ) from None
        file = self.folder / "terms"
        if file.exists() and kept_text(file) != self.key:
            raise UsageError(
                "the folder holds a comparison on other terms: model, data, budget or training differ",
                where=str(self.folder),
                fix="give another folder with -o, or remove that one",
            )
        write_text(file, self.key)

    def row(self, key: str) -> Row | None:
        """The finished row, if there is one. Raises ReadError for a file that holds no row."""
        file = self.folder / f"{key}.json"
        if not file.exists():
            return None
        try:
            return _row(kept_json(file))
        except (ValueError, TypeError, AttributeError) as error:
            raise unreadable(file, error) from None

    def keep(self, key: str, row: Row) -> None:
        """Write a finished row."""
        write_text(self.folder / f"{key}.json", json.dumps(asdict(row), indent=1) + "\n")

    def failure(self, key: str) -> Failed | None:
        """What has ended that method since `forget`, in any of the processes."""
        with contextlib.suppress(OSError, ValueError, TypeError):  # another process may take it away meanwhile
            return Failed(**json.loads((self.folder / f"{key}.failed").read_text(encoding="utf-8")))
        return None

    def fail(self, key: str, failed: Failed) -> None:
        """Write what has ended a method, so that processes that share the rows do not try it again."""
        write_text(self.folder / f"{key}.failed", json.dumps(asdict(failed), indent=1) + "\n")

    def forget(self, keys: Iterable[str]) -> None:
        """Of failures of earlier runs: a new run tries them again."""
        for key in keys:
            (self.folder / f"{key}.failed").unlink(missing_ok=True)

    def ended(self, keys: Iterable[str]) -> list[Row | Failed]:
        """What there is of these methods, in their order; those that are being made are left out."""
        found = (self.row(key) or self.failure(key) for key in keys)
        return [row for row in found if row is not None]

    @contextmanager
    def alone(self) -> Generator[None]:
        """One process after another: who reads the rows last writes the table last."""
        with (self.folder / "table.claim").open("a+b") as file:
            _lock(file.fileno(), wait=True)
            yield

    def work(self, key: str) -> Path:
        """The folder of a row that is not finished."""
        folder = self.folder / f"{key}.unfinished"
        folder.mkdir(exist_ok=True)
        return folder

    @contextmanager
    def claimed(self, key: str) -> Generator[bool]:
        """Whether the row is this process's to make, as long as it lives; a kill gives it back."""
        with (self.folder / f"{key}.claim").open("a+b") as file:
            yield _lock(file.fileno())


def _row(data: dict[str, Any]) -> Row:
    """Raises ValueError, TypeError or AttributeError for what is no row."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
    row = Row(**values)
    pairs = [row.before, row.macs, row.params, row.cut, row.tuned, row.milliseconds]
    if not all(is_pair(pair) for number, pair in enumerate(pairs) if number < 3 or pair is not None):
        raise ValueError("its numbers are no pairs")
    if not (isinstance(row.name, str) and isinstance(row.words, str) and isinstance(row.minutes, int | float)):
        raise TypeError("its name, words or minutes are none")
    if row.published is not None and not all(isinstance(v, int | float | None) for v in row.published.values()):
        raise TypeError("what is published are no numbers")
    return row


def is_pair(value: object) -> bool:
    """Whether it is two numbers, as read from JSON or in a row."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(n, int | float) for n in value)


def _lock(descriptor: int, *, wait: bool = False) -> bool:
    """An exclusive lock of the open file, which ends with it; on shared file systems over machines too."""
    try:
        if os.name == "nt":
            import msvcrt

            kind = msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK  # pyright: ignore[reportAttributeAccessIssue] - Windows
            msvcrt.locking(descriptor, kind, 1)  # pyright: ignore[reportAttributeAccessIssue] - Windows
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
