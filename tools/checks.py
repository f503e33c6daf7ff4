"""What can be known before the first minute of work: whether the results can be written, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_outputs(inputs: Sequence[Path | str | None], *outputs: Path | None) -> None:
    """Raise UsageError before the work where a file cannot be written, would replace what is read, or is named twice.

    The first output is the model: there must be room for one as large as the first input.

    inputs: models, whose external weights count as well, data, folders of data; one that is not there, or is not a
    file, is for its reader to report.
    """
    from ..passes.errors import UsageError
    from ..passes.graph.files import check_writable, target_file

    read = [Path(path) for path in inputs if path is not None]
    if read and not (_there(read[0]) and read[0].is_file()):
        return
    taken: list[Path] = []
    for path in filter(None, outputs):
        target = target_file(path)
        if target in taken or (target.exists() and any(_holds(one, target) for one in read)):
            raise UsageError(
                "the output is the input, a part of it, or named twice", where=str(path), fix="choose another name"
            )
        taken.append(target)
    for number, target in enumerate(taken):
        check_writable(target, 0 if number else _largest(read))


def check_report(path: Path | None) -> None:
    """Raise UsageError where a report is asked for and cannot be drawn."""
    if path is not None:
        from .report.charts import require_matplotlib

        require_matplotlib()


def _largest(read: Sequence[Path]) -> int:
    """Bytes that the result may take at most: the model with its weights."""
    model = [file for file in read[:1] if _there(file) and file.is_file()]
    return sum(file.stat().st_size for one in model for file in (one, *_weights(one)) if _there(file))


def _holds(read: Path, target: Path) -> bool:
    """Whether what is read is that file, lies in it, or keeps its weights there; hard links are the same file."""
    if not _there(read):
        return False
    if read.is_dir():
        return target.is_relative_to(read.resolve())
    return any(_there(file) and file.samefile(target) for file in (read, *_weights(read)))


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or none at all
        return False


def _weights(model: Path) -> list[Path]:
    """The files with the weights of a model, if it is one."""
    if model.suffix.lower() != ".onnx" or not model.is_file():
        return []
    from ..passes.graph.reading import external_files

    return external_files(model)
