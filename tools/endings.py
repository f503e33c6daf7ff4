"""What commands share from their first line on the terminal to their last: progress, files, the table, the JSON."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..pipeline.write import Result
    from ..runtime.progress import Stage

_EVERY = 10.0  # seconds between two lines of progress where standard error is not a terminal


def target_of(model: Path, output: Path | None) -> Path:
    """Raises UsageError for a model without a name, such as "." or "/"."""
    if not model.name:
        from ..passes.errors import UsageError

        raise UsageError("this is a folder, not a model file", where=str(model), fix="name the .onnx file in it")
    return output or model.with_name(f"{model.stem}.pruned.onnx")


def finish(
    result: Result,
    target: Path,
    plan_file: Path | None,
    as_json: bool,
    accuracy: tuple[float, float] | None = None,
    warning: str | None = None,
) -> None:
    from .show import print_result

    result.save(target)
    if plan_file is not None:
        result.plan.save(plan_file)
    if as_json:
        extra = {} if accuracy is None else {"accuracy": list(accuracy)}
        print_json({**result.report.as_dict(), "output": str(target), "plan": str(plan_file or ""), **extra})
    else:
        print_result(result, target, plan_file, accuracy)
    if warning is not None:
        click.echo(f"onnx-prune: {warning}", err=True)


def print_json(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value, indent=2))


def progress_shown(quiet: bool) -> AbstractContextManager[Stage]:
    """The stage on standard error: a spinner on a terminal, else a line now and then."""
    from ..runtime.progress import silent

    if quiet:
        return nullcontext(silent)
    return _spinner() if sys.stderr.isatty() else nullcontext(_Lines())


class _Lines:
    """A line with the stage where the last one is ten seconds old; quick runs stay silent."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def __call__(self, stage: str) -> None:
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            click.echo(f"onnx-prune: {now - self._start:.0f} s: {stage}", err=True)


@contextmanager
def _spinner() -> Generator[Stage]:
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield status.update
