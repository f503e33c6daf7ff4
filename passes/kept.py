"""Reading what an earlier run has kept for itself: the state of a comparison or a training, which may be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import ReadError


def kept_text(file: Path) -> str:
    """The text of the file. Raises ReadError where it holds none, or is no regular file: a pipe may never end."""
    check_file(file)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from None


def kept_json(file: Path) -> Any:  # noqa: ANN401 - what JSON holds
    """What the file says. Raises ReadError as `kept_text`, and for what is no JSON."""
    try:
        return json.loads(kept_text(file))
    except (ValueError, RecursionError) as error:
        raise unreadable(file, error) from None


def check_file(file: Path) -> None:
    """Raise ReadError for what is no regular file."""
    if not file.is_file():
        raise unreadable(file, "it is no regular file")


def unreadable(file: Path, reason: object) -> ReadError:
    """The error that the file cannot be gone on from."""
    return ReadError(
        "what an earlier run has kept cannot be read",
        where=f"{file}: {' '.join(str(reason).split())[:200]}",
        fix="remove that file, or the folder that it is in to begin anew",
    )
