"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import UsageError


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 with Unix line ends into a temporary file beside `path`, then rename it. Returns the path.

    Raises UsageError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(path.parent), fix="make it first")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            file = Path(folder) / path.name
            with file.open("wb") as handle:
                handle.write(text.encode())
                handle.flush()
                os.fsync(handle.fileno())
            file.replace(path)
    except OSError as error:
        raise UsageError(f"the output cannot be written ({error.strerror})", where=str(path)) from error
    return path
