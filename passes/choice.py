"""Passes by their command-line word: the class `BnScale` is `bn-scale`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from .errors import UsageError

Pass = TypeVar("Pass")


def word(chosen: object) -> str:
    """The command-line word of a pass."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(chosen).__name__).lower()


def choose(table: Mapping[str, type[Pass]], given: str | Pass, flag: str) -> Pass:
    """The pass of that word with its default options; a pass is itself. Raises UsageError for an unknown word."""
    if not isinstance(given, str):
        return given
    if given not in table:
        raise UsageError(f"there is no '{given}'", where=flag, fix=f"choose one of {', '.join(table)}")
    return table[given]()
