"""How accurate the result has to be: what that is measured on and by, and how much of it may go."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx

from ..passes.errors import AccuracyError, UsageError
from ..runtime.measure.metric import Evaluation, Metric, MetricLike, make_metric, metric_words, title
from ..runtime.progress import Stage
from .report import Try
from .write import Result

SMALLEST = ("macs", "params", "size", "latency")


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a metric may be lost: `allowed` of it, in its own unit, of `before`, the original's."""

    metric: Metric
    before: float
    allowed: float

    def holds(self, score: float) -> bool:
        """Whether a model of that score has lost no more; rounding errors of the difference do not count."""
        return self.before - score <= self.allowed + 1e-9

    def measured(self, result: Result) -> Result:
        """The result with its score."""
        return with_score(result, self, self.metric.of(result.model))

    def missed(self, score: float, where: str, fix: str, **values: object) -> AccuracyError:
        """The error that says by how much it fell."""
        name = self.metric.name
        return AccuracyError(
            f"{title(name)} fell from {metric_words(name, self.before)} to {metric_words(name, score)}, "
            f"by more than {metric_words(name, self.allowed)}",
            where=where,
            fix=fix,
            before=self.before,
            after=score,
            **values,
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """What the accuracy is measured on and by, and how much of it may go.

    evaluation: None where nothing is evaluated
    metric: see `make_metric`
    max_drop: what may be lost of it, in its own unit, 0.01 or "1%" (a point of a hundred), None for anything
    smallest: what is made as small as that allows where no budget is given, one of SMALLEST
    """

    evaluation: Evaluation
    metric: MetricLike | None = None
    max_drop: float | str | None = None
    smallest: str = "macs"

    def __post_init__(self) -> None:
        if self.smallest not in SMALLEST:
            raise UsageError(f"there is no '{self.smallest}'", where="--smallest", fix=f"choose {', '.join(SMALLEST)}")
        if self.max_drop is not None:
            as_drop(self.max_drop)
        wanted = "--max-drop" if self.max_drop is not None else "--metric" if self.metric is not None else None
        if wanted and self.evaluation.source is None and not callable(self.metric) and ":" not in str(self.metric):
            raise UsageError(f"{wanted} needs data to evaluate on", where=wanted, fix="give --evaluate")

    @property
    def wanted(self) -> bool:
        """Whether anything is to be evaluated."""
        return self.evaluation.source is not None or self.metric is not None

    def opened(self, original: onnx.ModelProto, progress: Stage) -> Metric | None:
        """The metric, before the work: raises where there is none, or the data are not what it needs."""
        return make_metric(self.metric, original, self.evaluation, progress) if self.wanted else None

    def limit(self, metric: Metric, original: onnx.ModelProto) -> Limit:
        """How much of it may go, with the original measured."""
        return Limit(metric, metric.of(original), math.inf if self.max_drop is None else as_drop(self.max_drop))


def as_drop(value: float | str) -> float:
    """1% or 0.01. Raises UsageError."""
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UsageError("this is not a share", where=f"--max-drop {text}", fix="for example 1%")
    return number


def scored(result: Result, limit: Limit, where: str) -> Result:
    """The result with its score. Raises AccuracyError, with the plan, where it has lost too much."""
    score = limit.metric.of(result.model)
    if not limit.holds(score):
        raise limit.missed(
            score,
            where,
            "keep more, give more --samples, or allow more; without a budget the smallest model that holds is found",
            plan=result.plan,
        )
    return with_score(result, limit, score)


def with_score(result: Result, limit: Limit, score: float, tries: tuple[Try, ...] = ()) -> Result:
    """The result whose report says so."""
    report = replace(result.report, metric=limit.metric.name, score=(limit.before, score), tries=tries)
    return replace(result, report=report)
