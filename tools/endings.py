"""What commands share at their end: files, the table, the JSON."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.progress import is_first
from .process.log import log
from .progress import notice, voice
from .settings.config import given_settings

if TYPE_CHECKING:
    from ..pipeline.sweep import Sweep
    from ..pipeline.write import Result


def target_of(model: Path, output: Path | None, kind: str = "pruned") -> Path:
    """Where the result goes. Raises UsageError for a model without a name, such as "." or "/"."""
    if not model.name:
        from ..passes.errors import UsageError

        raise UsageError("this is a folder, not a model file", where=str(model), fix="name the .onnx file in it")
    return output or model.with_name(f"{model.stem}.{kind}.onnx")


def finish(
    result: Result,
    target: Path,
    plan_file: Path | None,
    as_json: bool,
    report: Path | None = None,
    warning: str | None = None,
) -> None:
    from .show import print_result

    if not is_first():
        return
    result.save(target)
    if plan_file is not None:
        settings = given_settings(click.get_current_context(), files=False)
        replace(result.plan, settings=settings).save(plan_file)
    if report is not None:
        save_report(result, report)
    log.info("wrote %s", target)
    if as_json:
        score = result.report.score
        extra = {} if score is None else {"accuracy": list(score)}
        print_json({**result.report.as_dict(), "output": str(target), "plan": str(plan_file or ""), **extra})
    elif not voice().quiet:
        print_result(result, target, plan_file)
    for text in (_doubt(result.report.doubt), warning):
        if text is not None:
            notice(text)


def _doubt(reason: str | None) -> str | None:
    return reason and (
        "the data are most likely not prepared as those of the training were: what is fitted to them may be worthless\n"
        f"  where: {reason}\n"
        "  fix:   check --mean, --std, --resize and --crop, or scale the arrays as for the training"
    )


def save_report(found: Result | Sweep, path: Path) -> None:
    """Write the report, with the command that redoes the run and all of its settings."""
    from .report.page import About, write_report

    context = click.get_current_context()
    settings = {name: value for name, value in context.params.items() if value not in (None, (), False)}
    write_report(found, path, About(shlex.join(["onnx-prune", *sys.argv[1:]]), settings))


def print_json(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value, indent=2))
