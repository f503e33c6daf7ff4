"""The main command: prune."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.progress import silent
from .checks import check_outputs, check_report
from .cut_options import CUT, STRATEGY, cut_settings
from .endings import finish, target_of
from .finetune_command import IN_TURNS, check_in_turns, forget_run, run_in_turns
from .options import BUDGETS, EVALUATION, JSON, MODEL, OUTPUT, REPORT
from .progress import progress_shown
from .settings.sections import SectionedCommand

if TYPE_CHECKING:
    from ..passes.errors import AccuracyError
    from ..passes.selection.budget import Budget
    from ..pipeline.write import Result


@click.command(cls=SectionedCommand)
@MODEL
@OUTPUT
@BUDGETS
@STRATEGY
@EVALUATION
@click.option(
    "--max-drop",
    help="By how much the metric may fall (1%): the smallest model that keeps it is found. With a budget: nothing is "
    "written if the budget's model does not keep it. Needs --evaluate.",
)
@click.option(
    "--smallest",
    type=click.Choice(["macs", "params", "size", "latency"]),
    default="macs",
    show_default=True,
    help="What --max-drop makes smallest.",
)
@CUT
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Write what was removed to this file (plan.json)."
)
@REPORT
@IN_TURNS
@JSON
def prune(model: Path, output: Path | None, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Prune MODEL: remove channels until the budget holds, prove the result, write it.

    With --calibration (images like those the model was trained on, no labels) channels are chosen by what the next
    layers need, and the weights that stay are refitted. Without it small models that read images are pruned on
    synthetic images. Other models, and any with a criterion of weights alone such as l1, are pruned by their weights:
    nothing is refitted and accuracy is not protected, so fine-tune with --finetune, here or later.
    """
    from ..passes.errors import AccuracyError
    from ..passes.selection.budget import Budget

    target = target_of(model, output)
    data = [options[name] for name in ("calibration", "evaluation", "moments", "train")]
    check_outputs([model, *data], target, options["plan_file"], options["save_moments"], options["report"])
    check_report(options["report"])
    check_in_turns(options, [model, *data], target)
    budget = {k: options[k] for k in ("macs", "params", "size", "latency", "channels") if options[k]}
    job = _Job(model, target, Budget(**budget) if budget else None, cut_settings(options), options)
    try:
        result = job.fine_tuned() if options["train"] is not None else job.pruned()
    except AccuracyError as error:
        raise _with_plan(error, options["plan_file"] or target.with_name(f"{target.stem}.plan.json")) from None
    warning = None if options["train"] is not None else _warning(result)
    finish(result, target, options["plan_file"], as_json, options["report"], warning)
    if options["train"] is not None:
        forget_run(target)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the flags ask for."""

    model: Path
    target: Path
    budget: Budget | None
    settings: dict[str, Any]
    options: dict[str, Any]

    def pruned(self) -> Result:
        from ..pipeline.prune import prune

        chosen = {name: self.options[flag] for name, flag in _OF_ACCURACY.items()}
        with progress_shown() as progress:
            return prune(self.model, budget=self.budget, progress=progress, **chosen, **self.settings)

    def fine_tuned(self) -> Result:
        """The accuracy is that of the trained model."""
        from ..passes.graph.model import load
        from ..pipeline.goal import Goal, scored
        from ..runtime.measure.metric import Evaluation

        chosen = {name: self.options[flag] for name, flag in _OF_ACCURACY.items()}
        source, samples = chosen.pop("evaluate"), chosen.pop("evaluate_samples")
        how = {name: self.settings[name] for name in ("preprocessing", "seed", "device")}
        goal, original = Goal(Evaluation(source, samples, **how), **chosen), load(self.model).source
        metric = goal.opened(original, silent) if goal.wanted else None
        result = run_in_turns(self.model, self.target, self.budget, self.options, self.settings)
        return result if metric is None else scored(result, goal.limit(metric, original), self.model.name)


def _with_plan(error: AccuracyError, file: Path) -> AccuracyError:
    """The error, with the plan of what was tried written down."""
    from ..passes.errors import AccuracyError
    from ..passes.selection.plans.plan import Plan

    plan = error.values.get("plan")
    if not isinstance(plan, Plan):
        return error
    plan.save(file)
    return AccuracyError(
        error.what, where=error.where, fix=f"{error.fix}\n  plan:  {file} has what was tried", **error.values
    )


def _warning(result: Result) -> str | None:
    if result.report.macs[0] == result.report.macs[1]:
        return None  # nothing was cut
    refitted = result.plan.reconstruct != "none"
    if result.report.data is None:
        return _BY_WEIGHTS
    if "synthetic" in result.report.data:
        return _SYNTHETIC if refitted else f"{_SYNTHETIC}\nonnx-prune: {_NOT_REFITTED}"
    if (result.report.refit or "").startswith("left out"):
        return _REFIT_LEFT_OUT
    if "integer weights" in (result.report.refit or ""):
        return _INTEGERS
    return None if refitted else _NOT_REFITTED


_BY_WEIGHTS = (
    "no calibration data: channels were chosen by their weights alone and nothing was refitted,\n"
    "so accuracy is not protected\n"
    "  fix:   give --calibration IMAGES (no labels are needed), or --calibration synthetic to refit on\n"
    "         drawn images, or fine-tune the result"
)
_SYNTHETIC = (
    "no calibration data: synthetic images took their place\n"
    "  fix:   give --calibration IMAGES (no labels are needed): real ones lose less"
)
_NOT_REFITTED = (
    "the weights that stay were not refitted: accuracy is not protected\n"
    "  fix:   give --reconstruct sequential, or fine-tune the result"
)
_INTEGERS = (
    "operators on integers were not refitted: accuracy is not protected\n"
    "  fix:   cut the model before it is quantised, quantise it as QDQ, or fine-tune the result"
)
_REFIT_LEFT_OUT = (
    "the weights that stay were not refitted, which would have made it worse: accuracy is not protected\n"
    "  fix:   give more samples (--calibration, --samples), cut less, or fine-tune the result"
)
# Argument of `prune` -> its flag, where it is not for cuts before a training.
_OF_ACCURACY = {
    "evaluate": "evaluation",
    "evaluate_samples": "evaluate_samples",
    "metric": "metric",
    "max_drop": "max_drop",
    "smallest": "smallest",
}
