"""`onnx-prune sweep`: the models of several budgets from one measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .checks import check_outputs, check_report
from .cut_options import CUT, STRATEGY, cut_settings
from .endings import print_json, save_report, target_of
from .options import EVALUATION, JSON, MODEL, REPORT, options
from .process.log import log
from .progress import notice, progress_shown, voice
from .settings.sections import SectionedCommand

if TYPE_CHECKING:
    from ..passes.selection.budget import Budget
    from ..pipeline.sweep import Sweep

_KINDS = ("macs", "params", "size", "latency", "channels")
_LISTS = options(
    *(
        click.option(f"--{kind}", help=f"Budgets with commas between them: {example}.")
        for kind, example in zip(_KINDS, ("80,60,40%", "10M,5M", "20MB,10MB", "80,60,40%", "75,50%"), strict=True)
    )
)


@click.command(cls=SectionedCommand)
@MODEL
@_LISTS
@STRATEGY
@EVALUATION
@CUT
@click.option("--save-all", is_flag=True, help="Write every model; without it those on the front.")
@click.option("--no-models", is_flag=True, help="Write no model at all.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: MODEL's name with .BUDGET.onnx for each model."
)
@REPORT
@JSON
def sweep(model: Path, output: Path | None, as_json: bool, save_all: bool, no_models: bool, **given: Any) -> None:  # noqa: ANN401
    """Cut MODEL to several budgets: one calibration, one sensitivity, every budget cut, refitted and measured.

    A table shows what each keeps; * marks the front, the models that no other one beats in both milliseconds (MACs
    where these are not measured) and accuracy (with --evaluate; else nearness to the original's outputs).
    """
    from ..pipeline.sweep import sweep as run
    from .show import print_sweep

    budgets = _budgets(given)
    base = output or target_of(model, None).with_name(f"{model.stem}.onnx")
    targets = [base.with_name(f"{base.stem}.{_word(budget)}.onnx") for budget in budgets]
    data = [given[name] for name in ("calibration", "evaluation", "moments")]
    check_outputs([model, *data], *([] if no_models else targets), given["save_moments"], given["report"])
    check_report(given["report"])
    with progress_shown() as progress:
        found = run(
            model,
            budgets,
            evaluate=given["evaluation"],
            evaluate_samples=given["evaluate_samples"],
            metric=given["metric"],
            progress=progress,
            **cut_settings(given),
        )
    unknown = not any(point.front for point in found.points)
    written = {} if no_models else _write(found, targets, everything=save_all or unknown)
    if given["report"] is not None:
        save_report(found, given["report"])
    if as_json:
        print_json({**found.as_dict(), "files": [str(written.get(n, "")) for n in range(len(found.points))]})
    elif not voice().quiet:
        print_sweep(found, {number: path.name for number, path in written.items()})
    if unknown:
        notice(_NO_FRONT)


_NO_FRONT = (
    "nothing says how good these models are, so none is marked, and every one is written\n"
    "  fix:   give --evaluate DATA, or --calibration IMAGES to compare them with the original"
)


def _write(found: Sweep, targets: list[Path], *, everything: bool) -> dict[int, Path]:
    """Number of the point -> the file of its model."""
    written = {}
    for number, (point, target) in enumerate(zip(found.points, targets, strict=True)):
        if point.result is not None and (everything or point.front):
            written[number] = point.result.save(target)
            log.info("wrote %s", target)
    return written


def _budgets(given: dict[str, Any]) -> list[Budget]:
    """Every budget of the one list that is given: 80,60,40 and 80,60,40% are shares in percent."""
    from ..passes.errors import UsageError
    from ..passes.selection.budget import Budget

    lists = {kind: given[kind] for kind in _KINDS if given[kind]}
    if len(lists) != 1:
        raise UsageError(
            "a sweep wants one list of budgets", where="onnx-prune sweep", fix="give for example --macs 80,60,40%"
        )
    ((kind, text),) = lists.items()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    percent = all(part.replace(".", "", 1).rstrip("%").isdigit() for part in parts) and any(
        part.endswith("%") or float(part) > 1 for part in parts
    )
    return [Budget(**{kind: f"{part.rstrip('%')}%" if percent and kind != "size" else part}) for part in parts]


def _word(budget: Budget) -> str:
    """A budget as a part of a file's name: macs50."""
    from ..pipeline.sweep import budget_words

    return "".join(c for c in budget_words(budget) if c.isalnum() or c == ".")
