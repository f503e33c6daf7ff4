"""Files that appear whole or not at all: a temporary folder beside the target, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from .errors import UsageError
from .spill import file_bytes, spill

PROTOBUF_LIMIT = 2**31 - 2**20  # bytes; protobuf refuses 2 GiB, a margin for the graph itself


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 with Unix line ends. Returns the path.

    Raises UsageError where the folder does not exist or cannot be written.
    """
    return _publish(Path(path), lambda file: file.write_bytes(text.encode()))


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str], *, external: bool = False) -> Path:
    """Check the model and write it; the model itself is not changed. Returns the path.

    external: write the weights to `<name>.data` beside it, as for every model that protobuf cannot hold (2 GiB).
    Raises UsageError where the folder does not exist or cannot be written.
    """
    path = Path(path)

    def write(file: Path) -> None:
        if external or file_bytes(model) > PROTOBUF_LIMIT:
            light = spill(model, file.parent, name=f"{path.name}.data")
            file.write_bytes(light.SerializeToString())
        else:
            file.write_bytes(model.SerializeToString())
        onnx.checker.check_model(file, full_check=True)

    return _publish(path, write)


def _publish(path: Path, write: Callable[[Path], object]) -> Path:
    """Call `write` with a file of that name in a temporary folder, then move what it wrote, the named file last."""
    if not path.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(path.parent), fix="make it first")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            write(Path(folder) / path.name)
            for written in sorted(Path(folder).iterdir(), key=lambda p: p.name == path.name):
                with written.open("rb") as handle:
                    os.fsync(handle.fileno())
                written.replace(path.parent / written.name)
    except OSError as error:
        raise UsageError(f"the output cannot be written ({error.strerror})", where=str(path)) from error
    return path
