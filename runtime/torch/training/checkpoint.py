"""Where a training run stands, in a folder beside the output: written whole or not at all, read after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from ....passes.errors import UsageError
from ....passes.graph.files import publish
from ....passes.kept import check_file, unreadable

_FILE = "checkpoint.pt"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The folder of one run; key: what the run is, so that no other run goes on from it."""

    folder: Path
    key: str

    def prepare(self) -> None:
        """Make the folder, without what a kill in the middle of a write has left there."""
        if not self.folder.parent.is_dir():
            raise UsageError("the output folder does not exist", where=str(self.folder.parent), fix="create it first")
        self.folder.mkdir(exist_ok=True)
        self._sweep()

    def load(self, *, resume: bool) -> dict[str, Any] | None:
        """The state that was saved last, or None where there is none.

        Raises UsageError where there is one and it is not asked for, or where it is another run's; ReadError where it
        cannot be read.
        """
        file = self.folder / _FILE
        if not file.exists():
            return None
        if not resume:
            raise UsageError(
                "a fine-tuning run of this output is not finished",
                where=str(self.folder),
                fix="continue it with --resume, or remove that folder",
            )
        state = _loaded(file)
        if state.get("version") != _VERSION or state.get("key") != self.key:
            raise UsageError(
                "the checkpoint belongs to another run: models, data or options differ",
                where=str(self.folder),
                fix="give the same as before, or remove that folder",
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is there."""
        publish(self.folder / _FILE, lambda file: torch.save({**state, "version": _VERSION, "key": self.key}, file))

    def remove(self) -> None:
        """Leave nothing, unless somebody else put something there."""
        (self.folder / _FILE).unlink(missing_ok=True)
        self._sweep()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _sweep(self) -> None:
        for half in self.folder.glob(f".{_FILE}.*"):
            shutil.rmtree(half, ignore_errors=True)


def _loaded(file: Path) -> dict[str, Any]:
    """Raises ReadError for what is no checkpoint: damaged, of another kind, a pipe that may never end."""
    check_file(file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - torch and pickle raise what they like for bytes that are none of theirs
        raise unreadable(file, error) from None
    if not isinstance(state, dict):
        raise unreadable(file, "it holds no state")
    return state


def run_key(models: Iterable[onnx.ModelProto | None], *rest: object) -> str:
    """One text for models and everything else that decides a run."""
    digest = hashlib.sha256()
    for model in models:
        digest.update(b"none" if model is None else model.SerializeToString(deterministic=True))
    digest.update(json.dumps(rest, default=str, sort_keys=True).encode())
    return digest.hexdigest()
