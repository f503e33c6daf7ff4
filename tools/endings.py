"""What commands share from their first line on the terminal to their last: progress, files, the table, the JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..pipeline.prune import Result


def target_of(model: Path, output: Path | None) -> Path:
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


def progress_shown(quiet: bool) -> AbstractContextManager[Callable[[str], None]]:
    """A spinner with the stage on standard error, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        return nullcontext(lambda stage: None)
    return _spinner()


@contextmanager
def _spinner() -> Generator[Callable[[str], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield status.update
