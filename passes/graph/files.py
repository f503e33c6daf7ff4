"""Files that appear whole or not at all: a temporary folder beside the target, fsync, rename."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import onnx

from ..errors import ProofError, ReadError, UsageError, a_kind
from .mapped import entries, is_external, set_location
from .reading import external_files
from .scratch import scratch_folder, sweep
from .spill import WEIGHTS, file_bytes, spill, without_weights

_LIGHT = 64 << 20  # bytes of a model without its weights, at most
PROTOBUF_LIMIT = 2**31 - 2**20  # bytes; protobuf refuses 2 GiB, a margin for the graph itself


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 with Unix line ends. Returns the path.

    Raises UsageError where the folder does not exist or cannot be written.
    """
    return publish(path, lambda file: file.write_bytes(text.encode()))


def save_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    external: bool = False,
    original: onnx.ModelProto | None = None,
    check: Callable[[Path], object] = lambda file: None,
) -> Path:
    """Check the model and write it; the model itself is not changed. Returns the path.

    external: write the weights beside it, as for every model that protobuf cannot hold (2 GiB), into a file
    `<name>.<digest>.data`: whatever stops the run, a model and the weights of another are never taken for a pair.
    original: what it was made from: where that fails onnx.checker, the model need not pass it either.
    check: is given the file before it takes the place of another; what it raises leaves that one alone.
    Raises UsageError where the folder does not exist or cannot be written; ProofError where the result is no valid
    model.
    """
    path = target_file(path)
    before = _weights_of(path)

    def write(file: Path) -> None:
        if external or file_bytes(model) > PROTOBUF_LIMIT:
            file.write_bytes(_spilled(model, file).SerializeToString())
        else:
            file.write_bytes(model.SerializeToString())
        _check(file, path, original)
        check(file)

    publish(path, write)
    for name in before - _weights_of(path):
        if not _keeps_weights(path.with_name(name), but=path):
            path.with_name(name).unlink(missing_ok=True)
    return path


def _spilled(model: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    """The model without its weights, which are in a file beside it that is named by its digest."""
    light = spill(model, file.parent)
    weights = file.with_name(WEIGHTS)
    if not weights.stat().st_size:  # they are in Constant nodes, which stay in the model
        weights.unlink()
        return light
    with weights.open("rb") as content:
        name = f"{file.name}.{_digest(content)[:16]}.data"
    weights.rename(file.with_name(name))
    for tensor in filter(is_external, light.graph.initializer):
        set_location(tensor, name)
    return light


def _digest(content: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := content.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _weights_of(path: Path) -> set[str]:
    """Names of the files with weights that `save_model` wrote for the model that is there."""
    if not path.is_file() or not any(path.parent.glob(f"{glob.escape(path.name)}.*.data")):
        return set()
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError has no public base; what is no model has no weights
        return set()
    ours = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{16}}\.data")
    names = {entries(tensor).get("location", "") for tensor in model.graph.initializer if is_external(tensor)}
    return {name for name in names if ours.fullmatch(name)}


def holds(read: Path, target: Path) -> bool:
    """Whether what is read is that file, lies in it, or keeps its weights there; hard links are the same file."""
    if not there(read):
        return False
    if read.is_dir():
        return target.is_relative_to(read.resolve())
    return any(there(file) and file.samefile(target) for file in (read, *weights_beside(read)))


def there(path: Path) -> bool:
    """Whether something has that name, which may be one that nothing can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or none at all
        return False


def weights_beside(model: Path) -> list[Path]:
    """The files with the weights of a model, if it is one."""
    return external_files(model) if model.suffix.lower() == ".onnx" and model.is_file() else []


def _keeps_weights(file: Path, but: Path | None = None) -> bool:
    """Whether a model in the folder, but for that one, has its weights in the file: a copy of the model, say."""
    others = (model for model in file.parent.glob("*.onnx") if model != but and _is_light(model))
    return any(other.samefile(file) for model in others for other in weights_beside(model) if there(other))


def _check_foreign(path: Path) -> None:
    """Raise UsageError where a model, which need not be one that is read, would lose its weights."""
    if path.suffix.lower() != ".onnx" and path.exists() and _keeps_weights(path):
        raise UsageError(
            "a model beside the output keeps its weights there", where=str(path), fix="choose another name"
        )


def _is_light(model: Path) -> bool:
    """Whether it may be a model whose weights lie elsewhere: such a file is small."""
    try:
        return model.stat().st_size < _LIGHT
    except OSError:
        return False


def _check(file: Path, path: Path, original: onnx.ModelProto | None) -> None:
    for full in (True, False):
        complaint = _complaint(file, full=full)
        if complaint is None:
            return
        if original is None or _passes(original, full=full):
            raise ProofError(
                "the result does not pass onnx.checker",
                where=f"{path}: {complaint[:400]}",
                fix="nothing was written; if the original does pass, please report it with the graph",
            )


def _complaint(file: Path, *, full: bool) -> str | None:
    """What onnx.checker says of a model; full: shapes are inferred and compared as well."""
    try:
        onnx.checker.check_model(file, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split())
    return None


def _passes(model: onnx.ModelProto, *, full: bool) -> bool:
    """Whether onnx.checker has nothing against the model; its weights are not looked at."""
    with scratch_folder() as folder:
        (folder / WEIGHTS).touch()
        (folder / "model.onnx").write_bytes(without_weights(model).SerializeToString())
        return _complaint(folder / "model.onnx", full=full) is None


def publish(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Call `write` with a file of that name in a temporary folder, then move what it wrote, the named file last.

    A file that is replaced leaves its mode to the new one, and a link stays: what it names is replaced. What killed
    runs left in the folder goes.
    """
    path = target_file(path)
    _check_foreign(path)
    sweep(path.parent)
    try:
        with scratch_folder(path.parent) as folder:
            write(folder / path.name)
            if path.exists():
                (folder / path.name).chmod(stat.S_IMODE(path.stat().st_mode))
            for written in sorted(folder.iterdir(), key=lambda p: p.name == path.name):
                with written.open("rb") as handle:
                    os.fsync(handle.fileno())
                written.replace(path.parent / written.name)
    except OSError as error:
        raise _unwritable(error, path) from error
    return path


def target_file(path: str | os.PathLike[str]) -> Path:
    """The file to write: what a link names. Raises UsageError where it is no regular file, or its folder is missing."""
    path = as_path(path, "save")
    try:
        path = Path(os.path.realpath(path))
        _check_name(path)
        if not path.parent.is_dir():
            raise UsageError("the output folder does not exist", where=str(path.parent), fix="create it first")
        if path.is_dir():
            raise UsageError("the output is a folder", where=str(path), fix="name a file in it")
        if path.exists() and not path.is_file():
            raise UsageError(
                "the output is a device or a pipe, which cannot be replaced as a whole",
                where=str(path),
                fix="name a regular file",
            )
    except OSError as error:
        raise _unwritable(error, path) from error
    return path


def as_path(path: str | os.PathLike[str], where: str) -> Path:
    """The path as one. Raises UsageError for what names no file: another type, a text that no file can be called."""
    try:
        os.fsencode(found := Path(path))
    except (TypeError, UnicodeEncodeError):
        shown = repr(path)[:40] if isinstance(path, str) else a_kind(path)
        raise UsageError(f"{shown} is not a path", where=where, fix="give a str or a Path") from None
    if "\0" in str(found):
        raise UsageError("a path holds a zero byte", where=repr(str(found))[:200], fix="give another name")
    return found


def _check_name(path: Path) -> None:
    """Raise UsageError for links that lead to one another, ReadError for a name that is not text."""
    if path.is_symlink():  # what is resolved is no link
        raise UsageError("the output is a link that leads to itself", where=str(path), fix="name a regular file")
    try:
        str(path).encode()
    except UnicodeEncodeError:  # onnx.checker takes text alone, and so does protobuf for the name of the weights
        raise ReadError(
            "the name of the output, or of its folder, is not text (UTF-8)",
            where=repr(str(path))[:200],
            fix="choose another name with --output",
        ) from None


def check_room_for_digest(path: Path) -> None:
    """Raise ReadError where the file with the weights, which is named after this one, gets too long a name."""
    try:
        path.with_name(f"{path.name}.{'0' * 16}.data").exists()
    except OSError as error:
        raise _unwritable(error, path) from error


def check_writable(path: Path, size: int) -> None:
    """Raise UsageError where nothing can be written there, or not so many bytes."""
    path = target_file(path)
    _check_foreign(path)
    try:
        with scratch_folder(path.parent):  # permissions, quotas and read-only mounts are asked by doing it
            free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise _unwritable(error, path) from error
    if free < size:
        raise UsageError(
            f"there is no room for the result: {free / 1e6:.3g} MB are free, {size / 1e6:.3g} MB may be needed",
            where=str(path.parent),
            fix="make room, or choose another folder with --output",
        )


def _unwritable(error: OSError, path: Path) -> UsageError | ReadError:
    if error.errno == errno.ENAMETOOLONG:
        return ReadError("the name of the output is too long", where=f"{str(path)[:200]} ...", fix="take a shorter one")
    return UsageError(
        f"the output cannot be written ({error.strerror})",
        where=str(path),
        fix="make room and give yourself the right to write there, or choose another folder",
    )
