"""Several budgets from one calibration and one sensitivity: which models are worth having."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..passes.errors import BudgetError, UsageError
from ..passes.graph.model import ModelLike
from ..passes.selection.budget import Budget, as_budget
from ..runtime.data.open import DataSource
from ..runtime.figures import count, digits
from ..runtime.html import table
from ..runtime.measure.metric import Evaluation, MetricLike, metric_words, title
from ..runtime.progress import Stage, say, silent
from .arguments import check_kinds
from .decide import planner
from .goal import Goal
from .job import Job, prepare
from .proven import keeping_unseen
from .report import Curves
from .run import Run
from .settings import Settings
from .write import Result, cut_model, timed


@dataclass(frozen=True, slots=True)
class Point:
    """One model of a sweep.

    budget: as it was asked for
    result: None where it cannot be met
    missed: why it cannot
    front: whether no other model is at least as good in both, and better in one, of what is spent (milliseconds where
        they were measured, else MACs) and what is kept (the metric where there is one, else nearness to the original)
    """

    budget: Budget
    result: Result | None
    missed: str | None = None
    front: bool = False

    @property
    def spent(self) -> float:
        """Milliseconds, or MACs where none were measured."""
        assert self.result is not None
        report = self.result.report
        return report.macs[1] if report.latency is None else report.latency[1]

    @property
    def kept(self) -> float | None:
        """The metric, or minus the distance from the original's outputs; None where neither was measured."""
        assert self.result is not None
        report = self.result.report
        if report.score is not None:
            return report.score[1]
        return None if report.distance is None else -report.distance

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        found = None if self.result is None else self.result.report.as_dict()
        return {"budget": self.budget.to_json(), "missed": self.missed, "front": self.front, "report": found}


@dataclass(frozen=True, slots=True)
class Sweep:
    """The models of several budgets, in the order that these were given, and what all were chosen by."""

    points: tuple[Point, ...]
    curves: Curves

    @property
    def met(self) -> list[Point]:
        """Those whose budget could be met."""
        return [point for point in self.points if point.result is not None]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """(headings, rows) of a table for people."""
        reports = [point.result.report for point in self.met if point.result is not None]
        timed_at_all = any(report.latency is not None for report in reports)
        metric = next((report.metric for report in reports if report.metric is not None), None)
        kept = "distance" if metric is None else title(metric)
        headings = ["budget", "MACs", "parameters", *(["latency"] if timed_at_all else []), kept, "front"]
        return headings, [_cells(point, timed_at_all) for point in self.points]

    def _repr_html_(self) -> str:
        headings, rows = self.rows()
        return table("sweep", headings, rows)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"points": [point.as_dict() for point in self.points], "curves": asdict(self.curves)}


def _cells(point: Point, timed_at_all: bool) -> list[str]:
    name = budget_words(point.budget)
    if point.result is None:
        return [name, "out of reach", *[""] * (4 if timed_at_all else 3)]
    report = point.result.report
    latency = [f"{digits(report.latency[1])} ms"] if report.latency is not None else []
    kept = "" if report.distance is None else digits(report.distance)
    if report.metric is not None and report.score is not None:
        kept = metric_words(report.metric, report.score[1])
    return [name, count(report.macs[1]), count(report.params[1]), *latency, kept, "*" if point.front else ""]


def budget_words(budget: Budget) -> str:
    """A budget as it is typed: macs 50%."""
    ((kind, value),) = budget.to_json().items()
    return f"{kind} {100 * value:.4g}%" if isinstance(value, float) else f"{kind} {value}"


def sweep(
    model: ModelLike,
    budgets: Iterable[Budget | float | str],
    *,
    evaluate: DataSource | None = None,
    evaluate_samples: int | None = None,
    metric: MetricLike | None = None,
    sizes: Mapping[str, int] | None = None,
    progress: Stage = silent,
    **settings: Any,  # noqa: ANN401 - the fields of Settings
) -> Sweep:
    """Cut a model to each of these budgets: measured once, each cut, refitted, proven and timed.

    Args:
        model: as for `prune`.
        budgets: such as (0.8, 0.6, 0.4), shares of the MACs, or a `Budget` each.
        evaluate: data to measure the accuracy on, as for `prune`.
        evaluate_samples: so many of them; all by default.
        metric: as for `prune`.
        sizes: values of free dimensions of the inputs, by name.
        progress: is told each stage, in words.
        settings: the other arguments of `prune`, such as `calibration`: fields of `Settings`.

    Raises what `prune` raises, but for budgets that cannot be met: they stand in the result.
    """
    unknown = [name for name in settings if name not in Settings.__dataclass_fields__]
    if unknown:
        raise UsageError(
            f"there is no argument '{unknown[0]}'", where="sweep", fix="give those of prune, but budget and max_drop"
        )
    optional = {
        "evaluate": evaluate,
        "evaluate_samples": evaluate_samples,
        "metric": metric,
        "sizes": sizes,
        **settings,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    check_kinds(model=model, budgets=budgets, progress=progress, **given)
    asked = [limit for limit in (as_budget(budget) for budget in budgets) if limit is not None]
    if not asked:
        raise UsageError("no budget is given", where="sweep", fix="give some, such as 80%,60%,40%")
    chosen = Settings(**settings)
    evaluation = Evaluation(evaluate, evaluate_samples, chosen.preprocessing, chosen.seed, chosen.device)
    return _swept(prepare(model, chosen, Goal(evaluation, metric), sizes, progress), asked)


def _swept(job: Job, budgets: list[Budget]) -> Sweep:
    def attempt(run: Run) -> Sweep:
        run.progress("choosing channels")
        plans = planner(run, job.moments)
        points = []

        def made(asked: Budget) -> Result:
            plan = plans(asked)
            return cut_model(plans.ready(plan), plan, job.moments)

        for number, budget in enumerate(budgets, 1):
            run.progress(f"budget {number} of {len(budgets)}")
            points.append(_point(job, run, budget, made))
            say(run.progress, f"{budget_words(budget)}: {_told(points[-1])}")
        return Sweep(tuple(with_front(points)), plans.curves)

    return keeping_unseen(job.run, attempt)


def _point(job: Job, run: Run, budget: Budget, made: Callable[[Budget], Result]) -> Point:
    try:
        result = timed(run, made(budget))
    except BudgetError as error:
        return Point(budget, None, error.what)
    return Point(budget, result if job.limit is None else job.limit.measured(result))


def _told(point: Point) -> str:
    if point.result is None:
        return f"{point.missed}"
    report = point.result.report
    score = "" if report.metric is None or report.score is None else metric_words(report.metric, report.score[1])
    return ", ".join(filter(None, [f"{report.macs[1] / max(report.macs[0], 1):.1%} of the MACs", score]))


def with_front(points: list[Point]) -> list[Point]:
    """The points, with those marked that no other one is better than in what is spent or kept without being worse."""
    known = [point for point in points if point.result is not None and point.kept is not None]

    def beaten(point: Point) -> bool:
        return any(
            other.spent <= point.spent
            and (other.kept or 0.0) >= (point.kept or 0.0)
            and (other.spent, other.kept) != (point.spent, point.kept)
            for other in known
        )

    return [replace(point, front=point in known and not beaten(point)) for point in points]
