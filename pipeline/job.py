"""What a cut starts from: model and data read, measured once, and the accuracy of the original."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..passes.algebra.moments import MomentsSet
from ..passes.errors import ReadError, UsageError
from ..passes.graph.files import holds, target_file
from ..passes.graph.model import ModelLike, load
from ..passes.rewrite.replace_head import find_head
from ..passes.selection.budget import Budget
from ..passes.selection.refits import blocks_of
from ..runtime.progress import Stage
from ..runtime.soundness import check_anything_free
from .decide import planner
from .goal import Goal, Limit, scored
from .measure import moments_of
from .proven import keeping_unseen
from .read import read
from .run import Run
from .settings import NONE, SYNTHETIC_IF_IMAGES, Settings, make_settings, make_strategy
from .within_drop import Search
from .write import Result, cut_model, draft, timed


@dataclass(frozen=True, slots=True)
class Job:
    """A run with its moments, and how accurate the original is; None where nothing is evaluated."""

    run: Run
    moments: MomentsSet | None
    limit: Limit | None


def prepare(model: ModelLike, settings: Settings, goal: Goal, sizes: Mapping[str, int] | None, progress: Stage) -> Job:
    """Read and measure everything that no budget changes. What can fail is asked for first."""
    asked = make_settings(settings)
    _check_kept(asked, [model, settings.calibration, settings.moments, goal.evaluation.source])
    metric = goal.opened(load(model).source, progress) if goal.wanted else None
    run = read(model, asked, progress, sizes)
    if run.settings.replace_head is not None:
        find_head(run.analysis.groups.labelled)
    else:
        check_anything_free(run.analysis.groups)
    if blocks_of(run.strategy.reconstruct) is not None:
        from ..runtime.torch.training.distill import check_distillable

        check_distillable(run.original)
    try:
        moments = moments_of(run)
    except ReadError as error:
        if not _works_without_data(asked, error):
            raise
        progress("the drawn images give no finite activations: the weights alone decide")
        return prepare(model, replace(settings, calibration=NONE), goal, sizes, progress)
    return Job(run, moments, None if metric is None else goal.limit(metric, run.original))


def _check_kept(settings: Settings, read: Iterable[object]) -> None:
    """Raise UsageError where the moments would be kept in the place of what is read."""
    if settings.save_moments is None:
        return
    target = target_file(settings.save_moments)
    paths = [Path(one) for one in read if isinstance(one, str | os.PathLike)]
    if target.exists() and any(holds(path, target) for path in paths):
        raise UsageError(
            "the moments would replace what is read", where=f"save_moments={target}", fix="choose another name"
        )


def _works_without_data(settings: Settings, error: ReadError) -> bool:
    """Whether images that nobody asked for are what the error speaks of, and nothing that was asked for needs them."""
    if settings.calibration != SYNTHETIC_IF_IMAGES or "tensor" not in error.values:
        return False
    try:
        make_strategy(settings, data=False)
    except UsageError:
        return False
    return True


def within_budget(job: Job, budget: Budget | None) -> Result:
    """The model of a budget, half of the MACs by default. Raises AccuracyError where it loses more than may go."""

    def attempt(run: Run) -> Result:
        run.progress("choosing channels")
        plans = planner(run, job.moments)
        plan = plans(budget)
        result = cut_model(plans.ready(plan), plan, job.moments)
        checked = result if job.limit is None else scored(result, job.limit, run.analysis.name)
        return replace(timed(run, checked), curves=plans.curves)

    return keeping_unseen(job.run, attempt)


def smallest_within(job: Job, limit: Limit, smallest: str) -> Result:
    """The smallest model that loses no more than may go; see `within_drop.Search`."""

    def attempt(run: Run) -> Result:
        run.progress("choosing channels")
        plans = planner(run, job.moments)
        search = Search(
            plans,
            lambda plan: draft(plans.ready(plan), plan, job.moments),
            lambda plan: cut_model(plans.ready(plan), plan, job.moments),
            limit,
            smallest,
            run.progress,
        )
        return replace(timed(run, search.run(run.analysis.name)), curves=plans.curves)

    return keeping_unseen(job.run, attempt)
