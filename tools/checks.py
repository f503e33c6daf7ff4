"""What can be known before the first minute of work: whether the results can be written, and where."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from .process.log import open_log
from .progress import LOG_FILE
from .settings.config import READ, SAVED

# Parameters of commands that name what is read; data may be module:function, metrics as well.
_READ = ("model", "models", "plan", "data", "calibration", "evaluation", "train", "moments", "teacher", "reference")
_READ += ("recipe_file", "metric", "config")
_NEVER_EMPTY = {"macs", "params", "size", "latency", "criterion", "allocation", "reconstruct", "preset", "metric"}
_NEVER_EMPTY |= {"calibration", "evaluation", "train", "data", "max_drop"}
_WRITTEN = ("output", "plan_file", "report", "save_moments")


def watched_files(callback: Callable[..., Any] | None) -> Callable[..., Any]:
    """The command, which first makes sure of its log and of the file for its settings, and opens the log."""
    assert callback is not None, "a command does something"

    @functools.wraps(callback)
    def run(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - the command's own
        context = click.get_current_context()
        _refuse_empty(context)
        refuse_others_files(context)
        path = context.meta.get(LOG_FILE)
        if path is not None:
            open_log(path)
        return callback(*given, **named)

    return run


def _refuse_empty(context: click.Context) -> None:
    """Raise UsageError for an option without a text, such as a variable of a script that was not set."""
    from ..passes.errors import UsageError

    for parameter in context.command.params:
        if parameter.name in _NEVER_EMPTY and context.params.get(parameter.name) == "":
            raise UsageError("an option is empty", where=parameter.opts[-1], fix="give a value, or leave it out")


def check_outputs(inputs: Sequence[Path | str | None], *outputs: Path | None) -> None:
    """Raise UsageError before the work where a file cannot be written, would replace what is read, or is named twice.

    The first output is the model: there must be room for one as large as the first input.

    inputs: models, whose external weights count as well, data, folders of data; one that is not there, or is not a
    file, is for its reader to report. What else the command names is known here: its recipe, its settings, its log.
    """
    from ..passes.graph.files import check_writable, holds, target_file, there

    read = [Path(path) for path in inputs if path is not None]
    if read and not (there(read[0]) and read[0].is_file()):
        return
    context = click.get_current_context(silent=True)
    held = [*_files(inputs), *([] if context is None else _read_by(context))]
    taken = [] if context is None else [_real(path) for path in _kept_beside(context)]
    before = len(taken)
    for path in filter(None, outputs):
        target = target_file(path)
        if target in taken or (target.exists() and any(holds(one, target) for one in held)):
            raise _is_taken(path)
        taken.append(target)
    for number, target in enumerate(taken[before:]):
        check_writable(target, 0 if number else _largest(read))
    _check_name_of_weights(read, taken[before:])


def check_folder(inputs: Iterable[Path | str | None], folder: Path, made: re.Pattern[str] = re.compile("")) -> None:
    """Raise UsageError where a run would keep its state or its results among what it reads.

    folder: the run's own; made: how the files in it are called that it may replace, all by default.
    """
    from ..passes.errors import UsageError
    from ..passes.graph.files import there, weights_beside

    folder = _real(folder)
    context = click.get_current_context(silent=True)
    for one in [*_files(inputs), *([] if context is None else _read_by(context))]:
        files = [_real(file) for file in (one, *weights_beside(one))] if there(one) else []
        inside = any(f.is_relative_to(folder) and made.match(f.relative_to(folder).as_posix()) for f in files)
        if inside or (files and one.is_dir() and folder.is_relative_to(files[0])):
            raise UsageError(
                "the run would keep its files among what it reads",
                where=f"{folder}, and {one} is read",
                fix="choose another name with --output, or move what is read",
            )


def refuse_others_files(context: click.Context) -> None:
    """Raise UsageError where the log or the saved settings would change what the command reads, or makes.

    Both are written as the run goes on; neither may be a pipe, which would wait for a reader.
    """
    from ..passes.errors import UsageError

    beside = _kept_beside(context)
    if not beside:
        return
    from ..passes.graph.files import holds, there

    results = {_real(path) for path in [*_values(context, _WRITTEN), *_results_of(context)]}
    for number, path in enumerate(beside):
        if there(path) and path.is_fifo():
            raise UsageError("the log is a pipe", where=str(path), fix="name a file")
        target = _real(path)
        others = results | {_real(other) for other in beside[:number]}
        if target in others or (there(target) and any(holds(one, target) for one in _read_by(context))):
            raise _is_taken(path)


def _results_of(context: click.Context) -> list[Path]:
    """What the model's results are called where no other name is given."""
    model = context.params.get("model")
    return [
        model.with_name(f"{model.stem}.{kind}.onnx")
        for kind in ("pruned", "tuned")
        if isinstance(model, Path) and model.name
    ]


def _is_taken(path: Path) -> Exception:
    from ..passes.errors import UsageError

    return UsageError(
        "the output is the input, a part of it, or named twice", where=str(path), fix="choose another name"
    )


def _kept_beside(context: click.Context) -> list[Path]:
    """The log and the file for the settings, as far as they are asked for."""
    return [path for key in (LOG_FILE, SAVED) if (path := context.meta.get(key)) is not None]


def _read_by(context: click.Context) -> list[Path]:
    settings = context.meta.get(READ)
    return _files([*_values(context, _READ), *([] if settings is None else [settings])])


def _values(context: click.Context, names: Iterable[str]) -> list[Any]:
    """Paths and texts that these parameters of the command have."""
    found = []
    for name in names:
        value = context.params.get(name)
        found += value if isinstance(value, tuple | list) else [value]
    return [value for value in found if isinstance(value, str | Path)]


def _files(named: Iterable[Path | str | None]) -> list[Path]:
    """Paths, and for module:function the files of the module."""
    from ..runtime.data.functions import module_files, names_function

    found: list[Path] = []
    for one in filter(None, named):
        found += module_files(str(one)) if names_function(str(one)) else [Path(one)]
    return found


def _real(path: Path | str) -> Path:
    return Path(os.path.realpath(path))


def check_report(path: Path | None) -> None:
    """Raise UsageError where a report is asked for and cannot be drawn."""
    if path is not None:
        from .report.charts import require_matplotlib

        require_matplotlib()


def _largest(read: Sequence[Path]) -> int:
    """Bytes that the result may take at most: the model with its weights."""
    from ..passes.graph.files import there, weights_beside

    model = [file for file in read[:1] if there(file) and file.is_file()]
    return sum(file.stat().st_size for one in model for file in (one, *weights_beside(one)) if there(file))


def _check_name_of_weights(read: Sequence[Path], targets: Sequence[Path]) -> None:
    """Raise ReadError where weights would lie beside the result in a file whose name is too long."""
    from ..passes.graph.files import check_room_for_digest, weights_beside

    if targets and read and weights_beside(read[0]):
        check_room_for_digest(targets[0])
