"""Functions of the user's own: data and metrics that are named as module:function."""

from __future__ import annotations

import importlib
import importlib.machinery
import re
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from ...passes.errors import OnnxPruneError, ReadError, UsageError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def names_function(text: str) -> bool:
    """Whether it reads as module:function, and there is no file of that name."""
    return bool(_FUNCTION.fullmatch(text)) and not Path(text).exists()


def imported(text: str, what: str) -> Callable[..., Any]:
    """The function that module:function names; the module may lie in the working directory.

    what: which function it is, in words: "that yields data". Raises ReadError where it cannot be imported, with the
    last line of the traceback where the module itself fails, UsageError where it is not a function.
    """
    module, name = text.split(":")
    try:
        with _working_directory(), users_code():
            function = getattr(importlib.import_module(module), name)
    except BaseException as error:  # whatever ends the user's module ends nothing else
        if not is_theirs(error):
            raise
        if not isinstance(error, ImportError | AttributeError):
            raise failed(error, text, what) from error
        raise ReadError(
            f"the function {what} cannot be imported",
            where=f"{text}: {error}",
            fix="check its name, and that the module lies here or where Python finds it (PYTHONPATH)",
        ) from error
    if not callable(function):
        raise UsageError(f"{name} is not a function", where=text, fix="name a function")
    return function


def failed(error: BaseException, where: str, what: str) -> ReadError:
    """The user's own exception, as an error of theirs: its last line, and the line of their code."""
    try:
        last = traceback.format_exception_only(error)[-1].strip()
    except Exception:  # noqa: BLE001 - its own words may fail as well
        last = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return ReadError(
        f"the function {what} fails", where=f"{where}: {last}{at}", fix="call it in Python to see the error"
    )


@contextmanager
def users_code() -> Generator[None]:
    """What the user's own code prints goes to standard error: on standard output are results, maybe JSON, alone."""
    with redirect_stdout(sys.stderr):
        yield


def is_theirs(error: BaseException) -> bool:
    """Whether the user's own code failed, or ends Python; not where a signal or a closed generator ends it."""
    if isinstance(error, KeyboardInterrupt | GeneratorExit | OnnxPruneError):
        return False
    return not (isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM)


@contextmanager
def _working_directory() -> Generator[None]:
    """Modules are looked for in the working directory as well, last."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def module_files(text: str) -> list[Path]:
    """The files that module:function may be read from, as far as they are there; nothing is imported for it."""
    top, *parts = text.split(":", maxsplit=1)[0].split(".")
    try:
        spec = importlib.machinery.PathFinder.find_spec(top, [*sys.path, str(Path.cwd())])
    except (ImportError, OSError, ValueError):
        return []
    if spec is None:
        return []
    roots = [Path(folder) for folder in spec.submodule_search_locations or ()]
    inner = [root.joinpath(*parts) for root in roots if parts]
    named = [Path(spec.origin)] if spec.origin else []
    return [
        file
        for file in (*named, *(p.with_suffix(".py") for p in inner), *(p / "__init__.py" for p in inner))
        if file.is_file()
    ]
