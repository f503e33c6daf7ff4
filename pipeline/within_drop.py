"""The smallest model that keeps the accuracy: bisection over the budget, on one set of measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..passes.errors import AccuracyError, BudgetError, UsageError
from ..passes.selection.budget import Budget
from ..passes.selection.plans.plan import Plan
from ..runtime.measure.metric import metric_words, title
from ..runtime.progress import Stage, say
from .goal import Limit, with_score
from .report import Try
from .write import Result

_WORDS = {"macs": "MACs", "params": "parameters", "size": "bytes", "latency": "milliseconds"}
# Shares of the original's: the first try, below what none is looked for, and how near two tries come.
_FIRST, _LEAST, _STEP = 0.5, 0.05, 0.02


@dataclass(frozen=True, slots=True)
class Search:
    """Cuts models at shares of the original's MACs (parameters, bytes, milliseconds) and keeps the smallest that holds.

    plan: a budget -> its plan, from rankings and sensitivities that were measured once
    draft: a plan -> a model to measure, refitted on fewer samples
    write: a plan -> the model to keep
    smallest: one of SMALLEST

    Models of the same plan are made and measured once. The smallest draft that holds is written, and measured again.
    """

    plan: Callable[[Budget], Plan]
    draft: Callable[[Plan], Result]
    write: Callable[[Plan], Result]
    limit: Limit
    smallest: str
    progress: Stage
    _seen: dict[tuple[tuple[str, tuple[int, ...]], ...], tuple[Result, float]] = field(default_factory=dict)

    def run(self, where: str) -> Result:
        """The smallest result that holds, with its score and every try. Raises AccuracyError where none does."""
        low, high, share = _LEAST, 1.0, _FIRST
        tries: list[tuple[Try, Result]] = []
        while high - low > _STEP:
            found = self._tried(share)
            holds = found is not None and found[0].holds
            low, high = (low, share) if holds else (share, high)
            tries += [] if found is None else [found]
            share = (low + high) / 2
        rows = tuple(row for row, _ in tries)
        for row, drafted in sorted(tries, key=lambda pair: pair[0].share):
            if row.holds:
                result = self.write(drafted.plan)
                score = self.limit.metric.of(result.model)
                if self.limit.holds(score):
                    return with_score(result, self.limit, score, rows)
        raise self._none(tries, where)

    def _tried(self, share: float) -> tuple[Try, Result] | None:
        """The draft of that share and how it does; None where no plan is so small."""
        self.progress(f"trying {share:.1%} of the {_WORDS[self.smallest]}")
        try:
            plan = self.plan(Budget(**{self.smallest: share}))
        except BudgetError:
            return None
        key = tuple(plan.removed.items())
        if key not in self._seen:
            drafted = self.draft(plan)
            self._seen[key] = drafted, self.limit.metric.of(drafted.model)
        drafted, score = self._seen[key]
        macs = drafted.report.macs
        row = Try(share, macs[1] / max(macs[0], 1), score, self.limit.holds(score))
        say(self.progress, self._words(row))
        return row, drafted

    def _words(self, row: Try) -> str:
        """A line for people."""
        kept = f"{row.macs:.1%} of the MACs"
        asked = kept if self.smallest == "macs" else f"{row.share:.1%} of the {_WORDS[self.smallest]} ({kept})"
        name = self.limit.metric.name
        holds = "holds" if row.holds else "falls by too much"
        return f"tried {asked}: {title(name)} {metric_words(name, row.score)}, {holds}"

    def _none(self, tries: list[tuple[Try, Result]], where: str) -> AccuracyError | UsageError:
        if not tries:
            return UsageError("nothing can be cut", where=where, fix="see onnx-prune inspect for the reasons")
        row, gentlest = max(tries, key=lambda pair: pair[0].share)
        return self.limit.missed(
            row.score,
            f"{where}, at {row.macs:.1%} of the MACs: not even the gentlest cut that was tried holds",
            "allow more (--max-drop), give calibration data or more --samples, or fine-tune the result",
            plan=gentlest.plan,
        )
