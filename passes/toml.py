"""Reading TOML files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .errors import ReadError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed below 3.11 alone


def read_toml(path: Path) -> dict[str, Any]:
    """The file as a dict. Raises ReadError for what is no TOML file, or no regular one: a pipe may never end."""
    if path.exists() and not path.is_file():
        raise ReadError("this is no regular file", where=str(path), fix="give a TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReadError("the file cannot be read as TOML", where=f"{path}: {error}", fix="give a TOML file") from None
