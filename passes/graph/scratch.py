"""Temporary folders whose names say which process made them, so that the next run removes what a killed one left."""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".onnx-prune-"
_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32] or "host"
_OURS = re.compile(rf"{re.escape(_PREFIX)}{_HOST}-(\d+)-")


@contextmanager
def scratch_folder(parent: str | os.PathLike[str] | None = None) -> Generator[Path]:
    """A new folder in `parent`, by default where temporary files go, for as long as the context lasts."""
    if parent is None:
        _sweep_temporary()
    prefix = f"{_PREFIX}{_HOST}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@functools.cache
def _sweep_temporary() -> None:
    sweep()


def sweep(parent: str | os.PathLike[str] | None = None) -> None:
    """Remove the scratch folders of processes of this machine that are no more."""
    try:
        entries = list(os.scandir(parent or tempfile.gettempdir()))
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for folder in folders:
        maker = _OURS.match(folder.name)
        if maker and not _alive(int(maker[1])):
            shutil.rmtree(folder.path, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # there is no harmless question
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
