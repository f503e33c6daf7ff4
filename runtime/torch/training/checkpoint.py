"""Where a training run stands, in a folder beside the output: written whole or not at all, read after a kill."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from ....passes.errors import ReadError, UsageError
from ....passes.graph.files import publish

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
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ReadError(
                "the checkpoint cannot be read", where=f"{file}: {error}", fix="remove the folder"
            ) from None
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


def run_key(models: Iterable[onnx.ModelProto | None], *rest: object) -> str:
    """One text for models and everything else that decides a run."""
    digest = hashlib.sha256()
    for model in models:
        digest.update(b"none" if model is None else model.SerializeToString(deterministic=True))
    digest.update(json.dumps(rest, default=str, sort_keys=True).encode())
    return digest.hexdigest()
