"""docs/coverage.md from the rows that `coverage` measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

_REACHED = 0.5005  # of the MACs: the budget holds from below, but for rounding where less can go
_LISTED = 3  # reasons a model
_HEAD = """\
Written by `python -m onnx_prune.tools.coverage`: every model is read, analysed, cut to half of its MACs (or as far as
its pinned parts allow), proven on random input against the original with silenced consumers, in float32 with ONNX
Runtime's optimisation off, and checked. No model has code of its own."""
_LEGEND = """\
seconds: of the processor, for the analysis (facts, labels, groups); can go: share of the MACs that goes when every free
group keeps one unit; kept: share of the MACs after the cut; proof: largest difference relative to the largest output;
groups: free of all; pinned because: the most frequent reasons, with the number of groups."""
_HEADINGS = (
    "model",
    "nodes",
    "seconds",
    "can go",
    "kept",
    "proof",
    "groups",
    "pinned because",
    "status",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One model: what was found, done and proven; status: "ok", or what went wrong."""

    name: str
    source: str
    status: str = "ok"
    nodes: int = 0
    seconds: float = 0.0
    convolutional: bool = False
    can_go: float = 0.0
    kept: float = 1.0
    proof: float | None = None
    free: int = 0
    groups: int = 0
    pinned: dict[str, int] = field(default_factory=dict)
    peak: int = 0


def render(rows: Sequence[Row], number: int) -> str:
    """The page in Markdown: summary, convolutional networks that stop short of the half, the table.

    number: how many models there are, run or not.
    """
    parts = [
        "# Coverage",
        _HEAD,
        *_summary(rows, number),
        "## Convolutional networks that stop short of the half",
        _short(rows),
        "## All models",
        _LEGEND,
        _table(rows),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(rows: Sequence[Row], number: int) -> list[str]:
    good = [row for row in rows if row.status == "ok"]
    proven = [row for row in good if row.proof is not None]
    convolutional = [row for row in good if row.convolutional]
    reached = [row for row in convolutional if row.kept <= _REACHED]
    points = [
        f"{len(rows)} of {number} models were run; {len(good)} of them went through"
        + (f", {len(rows) - len(good)} did not (see their status)." if len(good) < len(rows) else ".")
    ]
    if proven:
        worst = max(proven, key=lambda row: row.proof or 0)
        points.append(f"The worst proof error is {worst.proof:.1e} ({worst.name}).")
        slowest = max(good, key=lambda row: row.seconds)
        points.append(
            f"Analysis takes {median(row.seconds for row in good):.2f} s in the median, at most "
            f"{slowest.seconds:.1f} s ({slowest.name}, {slowest.nodes} nodes)."
        )
    if convolutional:
        points.append(
            f"{len(reached)} of {len(convolutional)} convolutional networks ({len(reached) / len(convolutional):.0%}) "
            "come down to half of their MACs. Convolutional: more than one convolution, and no product of two "
            "activations (attention, correlation)."
        )
    others = [row for row in good if not row.convolutional]
    if others:
        down = sum(row.kept <= _REACHED for row in others)
        points.append(f"So do {down} of the {len(others)} others (transformers and mixed ones).")
    return ["\n".join(f"- {point}" for point in points)]


def _short(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.convolutional and row.status == "ok" and row.kept > _REACHED]
    if not found:
        return "None."
    lines = ["| model | kept | pinned because |", "|---|---|---|"]
    lines += [f"| {row.name} | {row.kept:.1%} | {_pinned(row)} |" for row in found]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    for row in sorted(rows, key=lambda row: (row.source, row.name)):
        proof = "" if row.proof is None else f"{row.proof:.1e}"
        cells = [
            row.name,
            str(row.nodes),
            f"{row.seconds:.2f}",
            f"{row.can_go:.1%}",
            f"{row.kept:.1%}",
            proof,
            f"{row.free} of {row.groups}",
            _pinned(row),
            row.status.replace("|", "/")[:200],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _pinned(row: Row) -> str:
    """The most frequent reasons, with the number of groups."""
    reasons = [f"{reason} ({count})" for reason, count in list(row.pinned.items())[:_LISTED]]
    rest = len(row.pinned) - _LISTED
    return "; ".join([*reasons, *([f"{rest} more"] if rest > 0 else [])])
