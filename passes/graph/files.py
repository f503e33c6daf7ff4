"""Files that appear whole or not at all: a temporary folder beside the target, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from ..errors import ProofError, UsageError
from .spill import file_bytes, spill

PROTOBUF_LIMIT = 2**31 - 2**20  # bytes; protobuf refuses 2 GiB, a margin for the graph itself


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 with Unix line ends. Returns the path.

    Raises UsageError where the folder does not exist or cannot be written.
    """
    return publish(Path(path), lambda file: file.write_bytes(text.encode()))


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str], *, external: bool = False) -> Path:
    """Check the model and write it; the model itself is not changed. Returns the path.

    external: write the weights to `<name>.data` beside it, as for every model that protobuf cannot hold (2 GiB).
    Raises UsageError where the folder does not exist or cannot be written, or where that .data file is another
    model's; ProofError where the result is no valid model.
    """
    path = Path(path)
    data = f"{path.name}.data"

    def write(file: Path) -> None:
        if external or file_bytes(model) > PROTOBUF_LIMIT:
            light = spill(model, file.parent, name=data)
            file.write_bytes(light.SerializeToString())
            _keep_if_used(file.with_name(data), path)
        else:
            file.write_bytes(model.SerializeToString())
        _check(file, path)

    return publish(path, write)


def _keep_if_used(data: Path, path: Path) -> None:
    """Drop the file if the weights are in Constant nodes, which stay in the model; else it must not hide another's."""
    if not data.stat().st_size:
        data.unlink()
    elif not path.exists() and path.with_name(data.name).exists():
        raise UsageError(
            "the output's weights would overwrite a file that is not the output's",
            where=str(path.with_name(data.name)),
            fix="choose another name for the output, or remove that file",
        )


def _check(file: Path, path: Path) -> None:
    try:
        onnx.checker.check_model(file, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ProofError(
            "the result does not pass onnx.checker",
            where=f"{path}: {' '.join(str(error).split())[:400]}",
            fix="nothing was written; if the original does pass, with full_check=True, please report it with the graph",
        ) from error


def publish(path: Path, write: Callable[[Path], object]) -> Path:
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
        raise UsageError(
            f"the output cannot be written ({error.strerror})", where=str(path), fix="name a place that can be written"
        ) from error
    return path
