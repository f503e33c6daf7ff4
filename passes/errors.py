"""What goes wrong, said to the user: what, where, and what to do; one class an exit code of the command line."""

from __future__ import annotations

import re
from typing import ClassVar


def a_kind(value: object) -> str:
    """The type of a value in words: "an int", "a list"."""
    name = "None" if value is None else type(value).__name__
    return name if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def printable(text: str) -> str:
    """The text with \\x1b and the like for what a terminal would obey, or cannot show; line ends stay.

    Names come from models and files of anyone: they may hold escape sequences, and bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def no_memory(error: Exception) -> bool:
    """Whether a library cannot be loaded, or a thread be started, for want of memory, as Linux says it."""
    return bool(re.search("failed to map segment|allocate memory|can't start new thread", str(error)))


class OnnxPruneError(Exception):
    """Base of every error that the user can act on; `str()` is its three parts, a line each.

    what: the problem, in one line without a full stop; where: the place (a file, a node, a group); fix: what to do.
    values: the numbers and names in the words, for programs: `BudgetError("...", asked=0.5, possible=0.69)`.
    `exit_code` is what the command line ends with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, where: str | None = None, fix: str | None = None, **values: object) -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix
        self.values = values

    def __str__(self) -> str:
        where = f"\n  where: {self.where}" if self.where else ""
        fix = f"\n  fix:   {self.fix}" if self.fix else ""
        return printable(self.what + where + fix)


class UsageError(OnnxPruneError):
    """What was asked for makes no sense."""

    exit_code = 2


class ReadError(OnnxPruneError):
    """The model or the data cannot be read, or ONNX Runtime cannot run it."""

    exit_code = 3


class BoundError(ReadError):
    """One run of the model takes more memory, or more time, than it may; values["shapes"]: those of its inputs."""


class BudgetError(OnnxPruneError):
    """The budget cannot be met; the message says what can."""

    exit_code = 4


class ProofError(OnnxPruneError):
    """The cut model does not compute what it must; nothing is written."""

    exit_code = 5


class UnseenError(ProofError):
    """Nothing shows whether the cut of some groups is right; values["nodes"]: their names, and what shows nothing."""


class AccuracyError(OnnxPruneError):
    """The accuracy fell by more than is allowed; nothing is written."""

    exit_code = 6
