"""What a run brought, as a value that is JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..passes.selection.ranking import Ranking
from ..runtime.figures import count, digits, pinned_words, shortened, size
from ..runtime.html import table
from ..runtime.measure.metric import metric_words, title
from ..runtime.measure.sensitivity import Sensitivities


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group of channels: units before and after, and why it was pinned (None where it was free)."""

    name: str
    before: int
    after: int
    pinned: str | None


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves of the groups that were ranked.

    error: group -> the criterion's estimated harm after each removal, in the criterion's own unit
    sensitivity: group -> {units that go: divergence of the outputs when it alone is cut}; empty where none was measured
    kind: of the divergence, "kl" or "relative mse"; None where there is none
    """

    error: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    sensitivity: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    kind: str | None = None


def curves_of(rankings: Mapping[str, Ranking], measured: Sensitivities | None) -> Curves:
    """The curves of what was ranked and measured."""
    error = {name: tuple(np.asarray(ranking.harm, float).tolist()) for name, ranking in rankings.items()}
    if measured is None:
        return Curves(error)
    return Curves(error, {name: dict(values) for name, values in measured.values.items()}, measured.kind)


@dataclass(frozen=True, slots=True)
class Try:
    """A model on the way to the smallest that keeps its accuracy: the share asked for, that of the MACs, its score."""

    share: float
    macs: float
    score: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What a run brought; pairs are (before, after).

    model: its name
    groups: each group of channels
    macs: multiply-accumulates at batch 1
    params: parameters
    size: bytes of the file
    latency: milliseconds, of processor time where models are compared by it; None where it was not measured
    proof: largest relative difference of the outputs to those of the original with silenced channels
    seconds: load to proof
    data: what channels were chosen and refitted on, None for the weights alone
    doubt: why the data are most likely not prepared as those of the training were; None where nothing speaks for it
    head: by what the last layers were replaced after the proof, None where they were not
    compared: how many of the tensors that the cut changed the proof saw with finite, varied numbers, and how many there
        are
    inner: the largest relative difference of a channel in them
    latency_ratio: after / before, by processor time where the machine was busy
    measured_on: threads, processor, whether processor time is told, and whether the machine was busy
    same_class: share of the samples whose highest output is that of the original; None for models that do not classify
    distance: of the outputs from the original's, see `measure.closeness`; None where there are no data
    samples: how many the two were measured on
    refit: "kept", maybe "except in" some layers and why; else why nothing was refitted, or why all was left out; None
        where none was asked for
    inputs: the sizes of the inputs that MACs and milliseconds are told for
    free: those of them of which the model leaves more than the batch open
    proved_at: the smaller sizes that the proof and the latencies are of, where runs at full size are heavy
    metric: what score is, such as "top1"
    score: before and after, None where nothing was evaluated
    tries: models on the way to the smallest that keeps its score
    gone: names of the groups that went entirely: blocks and branches, with all that served them alone
    """

    model: str
    groups: tuple[GroupRow, ...]
    macs: tuple[int, int]
    params: tuple[int, int]
    size: tuple[int, int]
    latency: tuple[float, float] | None
    proof: float
    seconds: float
    data: str | None = None
    head: str | None = None
    compared: tuple[int, int] | None = None
    inner: float | None = None
    latency_ratio: float | None = None
    measured_on: str | None = None
    same_class: float | None = None
    distance: float | None = None
    samples: int | None = None
    refit: str | None = None
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    proved_at: Mapping[str, tuple[int, ...]] | None = None
    metric: str | None = None
    score: tuple[float, float] | None = None
    tries: tuple[Try, ...] = ()
    gone: tuple[str, ...] = ()
    doubt: str | None = None

    def __repr__(self) -> str:
        pairs = f"macs={self.macs}, params={self.params}, size={self.size}, latency={self.latency}"
        return f"Report({self.model!r}, {pairs}, proof={self.proof:.1e})"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> list[tuple[str, str, str, str]]:
        """(what, before, after, what is kept), in words."""
        rows = [("MACs", self.macs, count), ("parameters", self.params, count), ("file", self.size, size)]
        found = [(n, w(before), w(after), f"{after / before:.1%}" if before else "") for n, (before, after), w in rows]
        if self.latency is not None and self.latency_ratio is not None:
            before, after = self.latency
            found.append(("latency", f"{digits(before)} ms", f"{digits(after)} ms", f"{self.latency_ratio:.1%}"))
        if self.score is not None and self.metric is not None:
            before, after = (metric_words(self.metric, value) for value in self.score)
            found.append((title(self.metric), before, after, ""))
        return found

    def _repr_html_(self) -> str:
        cut = [row for row in self.groups if row.after < row.before]
        pinned = sum(row.pinned is not None for row in self.groups)
        note = f"{pinned_words(pinned, len(self.groups))}; largest difference in the proof {self.proof:.1e}"
        rows = [(shortened(r.name), str(r.before), str(r.after), f"{r.after / r.before:.0%}") for r in cut]
        summary = table(self.model, ("", "before", "after", "kept"), self.summary())
        return summary + table("channels", ("group", "before", "after", "kept"), rows, note)
