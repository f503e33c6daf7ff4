"""What the coverage run found: one row a model and job, kept as JSON lines beside the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


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


@dataclass(frozen=True, slots=True)
class PeerRow:
    """One model through another tool.

    status: "ok", or "failed: ..." (no output), "wrong: ..." (an unusable one), "invalid: ..." (it runs, and the checker
    refuses it); kept: share of the MACs in its output, by our cost model; seconds: wall time of the peer alone.
    """

    name: str
    status: str = "ok"
    kept: float | None = None
    seconds: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class TorchRow:
    """One model as a torch module.

    status: "ok", or what torch cannot do; error: largest difference from ONNX Runtime relative to the largest output;
    own: where that is large, how far ONNX Runtime is from itself when only rounding differs.
    """

    name: str
    status: str = "ok"
    error: float | None = None
    own: float | None = None


AnyRow = Row | PeerRow | TorchRow
KINDS: dict[str, type[AnyRow]] = {"onnx-prune": Row, "onnxsim": PeerRow, "torch": TorchRow}  # job -> its rows
Rows = dict[tuple[str, str], AnyRow]  # by (job, model)


def read_rows(path: Path) -> Rows:
    """The rows of that file, the last one of each job and model; none where there is no file."""
    rows: Rows = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        fields = json.loads(line)
        job = fields.pop("job")
        rows[job, fields["name"]] = KINDS[job](**fields)
    return rows


def append_row(path: Path, job: str, row: AnyRow) -> None:
    """Add one line, at once, so that an interrupted run goes on where it stopped."""
    with path.open("a") as lines:
        lines.write(_line(job, row))


def write_rows(path: Path, rows: Mapping[tuple[str, str], AnyRow]) -> None:
    """One line each, in order."""
    path.write_text("".join(_line(job, rows[job, name]) for job, name in sorted(rows)))


def _line(job: str, row: AnyRow) -> str:
    return json.dumps({"job": job, **asdict(row)}) + "\n"
