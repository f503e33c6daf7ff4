"""docs/coverage.md from the rows that `coverage` measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from .coverage_rows import PeerRow, Row, Rows, TorchRow
from .peers import SPARSITY, TORCH_PRUNING_DOES, TORCH_PRUNING_FAILS, TORCH_PRUNING_LIST, architecture

_REACHED = 0.5005  # of the MACs: the budget holds from below, but for rounding where less can go
_LISTED = 3  # reasons a model
_AGREES = 1e-4  # of the largest output, torch and ONNX Runtime
_HEAD = """\
Written by `python -m onnx_prune.tools.lab.coverage`: every model is read, analysed, cut to half of its MACs (or as far
as its pinned parts allow), proven on random input against the original with silenced consumers, in float32 with ONNX
Runtime's optimisation off, and checked. No model has code of its own. The rows lie in `coverage.jsonl`, beside this
page; the command goes on with models that have none."""
_LEGEND = """\
seconds: of the processor, for the analysis (facts, labels, groups), with one run of the model where shapes come out of
control flow; can go: share of the MACs that goes when every free group keeps one unit; kept: share of the MACs after
the cut; proof: largest difference relative to the largest output; torch: the same between the whole model as a torch
module and in ONNX Runtime, in brackets how far ONNX Runtime is from itself when only rounding differs; groups: free of
all; pinned because: the most frequent reasons, with the number of groups."""
_HEADINGS = (
    "model",
    "nodes",
    "seconds",
    "can go",
    "kept",
    "proof",
    "torch",
    "groups",
    "pinned because",
    "status",
)


def render(found: Rows, number: int) -> str:
    """The page in Markdown: summary, networks that stop short of the half, the table, the peers.

    number: how many models there are, run or not.
    """
    rows = [row for row in found.values() if isinstance(row, Row)]
    peers = {row.name: row for row in found.values() if isinstance(row, PeerRow)}
    modules = {row.name: row for row in found.values() if isinstance(row, TorchRow)}
    parts = [
        "# Coverage",
        _HEAD,
        *_summary(rows, number),
        *_agreement(list(modules.values())),
        "## Networks that stop short of the half",
        _short(rows),
        "## All models",
        _LEGEND,
        _table(rows, modules),
        "## Beside others",
        *_beside(rows, peers),
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
    found = [row for row in rows if row.status == "ok" and row.kept > _REACHED]
    if not found:
        return "None."
    lines = ["| model | convolutional | kept | can go | pinned because |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.name} | {'yes' if row.convolutional else 'no'} | {row.kept:.1%} | {row.can_go:.1%} | {_pinned(row)} |"
        for row in sorted(found, key=lambda row: row.name)
    ]
    return "\n".join(lines)


def _agreement(modules: Sequence[TorchRow]) -> list[str]:
    if not modules:
        return []
    run = [row for row in modules if row.error is not None]
    near = [row for row in run if (row.error or 0.0) <= _AGREES]
    rounded = [row for row in run if row not in near and row.own is not None and (row.error or 0.0) <= 10 * row.own]
    text = f"As a torch module {len(near)} of {len(modules)} models agree with ONNX Runtime to {_AGREES:.0e} of the "
    text += f"largest output; {len(rounded)} differ by at most ten times what ONNX Runtime differs from itself by, "
    return [text + f"{len(modules) - len(run)} have operators that torch has no entry for."]


def _module(row: TorchRow | None) -> str:
    if row is None or row.error is None:
        return "" if row is None else row.status.replace("|", "/")[:80]
    return f"{row.error:.1e}" + ("" if row.own is None else f" ({row.own:.1e})")


def _table(rows: Sequence[Row], modules: Mapping[str, TorchRow]) -> str:
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
            _module(modules.get(row.name)),
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


def _beside(rows: Sequence[Row], peers: Mapping[str, PeerRow]) -> list[str]:
    """The same models through others: counts, what Torch-Pruning publishes, one line a model."""
    version = next((f" {row.version}" for row in peers.values() if row.version), "")
    compared = [row for row in rows if row.name in peers]
    intro = (
        f"onnxsim: `onnxsim.pruning.apply_structured_pruning`{version}, sparsity {SPARSITY}, without calibration, run "
        f"here on {len(compared)} of the {len(rows)} models. It takes no budget, so that its shares fall as they fall. "
        "Its output is wrong if ONNX Runtime refuses it or its outputs have other shapes, and invalid if it runs, but "
        "declares shapes that contradict the inferred ones (`onnx.checker` with `full_check` refuses it). "
        "The light models compute their weights with ConstantOfShape nodes, which onnxsim leaves alone. "
        f"Torch-Pruning: its [published list]({TORCH_PRUNING_LIST}) of torchvision 0.13.1, forward passes only."
    )
    known = {architecture(row.name): row for row in rows if row.name.startswith("tv-")}
    listed = [name for name in sorted(TORCH_PRUNING_DOES | TORCH_PRUNING_FAILS) if name in known]
    failures = [name for name in sorted(TORCH_PRUNING_FAILS) if name in known]
    number = len(TORCH_PRUNING_DOES | TORCH_PRUNING_FAILS)
    through = sum(known[name].status == "ok" for name in listed)
    shares = ", ".join(f"{name} {_kept(known[name])}" for name in failures) or "none was run"
    points = [
        f"Of the {number} architectures that Torch-Pruning lists {len(listed)} are here by name; {through} go through.",
        f"Those that it fails on, and what is kept of their MACs here: {shares}.",
    ]
    return [intro, _counts(compared, peers), "\n".join(f"- {point}" for point in points), _peer_table(compared, peers)]


def _counts(rows: Sequence[Row], peers: Mapping[str, PeerRow]) -> str:
    ours = [row.kept for row in rows if row.status == "ok"]
    kept = [row.kept for row in peers.values() if row.kept is not None]
    wrong, invalid, failed = (
        sum(row.status.startswith(word) for row in peers.values()) for word in ("wrong", "invalid", "failed")
    )
    listed = len(TORCH_PRUNING_DOES), len(TORCH_PRUNING_FAILS)
    lines = [
        ("", "onnx-prune", "onnxsim", "Torch-Pruning"),
        ("---", "---", "---", "---"),
        ("models", len(rows), len(peers), sum(listed)),
        ("come through and run", len(ours), len(kept), listed[0]),
        ("come down to 50 % of the MACs", _below(ours, _REACHED), _below(kept, _REACHED), "not published"),
        ("come down to 55 %", _below(ours, 0.55), _below(kept, 0.55), "not published"),
        ("keep 95 % or more", len(ours) - _below(ours, 0.95), len(kept) - _below(kept, 0.95), "not published"),
        ("output runs, but is invalid", 0, invalid, "not published"),
        ("output is wrong", 0, wrong, "not published"),
        ("no output", len(rows) - len(ours), failed, listed[1]),
    ]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _below(shares: Iterable[float], limit: float) -> int:
    return sum(share <= limit for share in shares)


def _kept(row: Row) -> str:
    return f"{row.kept:.1%}" if row.status == "ok" else "failed"


def _peer_table(compared: Sequence[Row], peers: Mapping[str, PeerRow]) -> str:
    lines = ["| model | onnx-prune keeps | onnxsim keeps | onnxsim | Torch-Pruning |", "|" + "---|" * 5]
    for row in sorted(compared, key=lambda row: (row.source, row.name)):
        peer = peers[row.name]
        kept = "" if peer.kept is None else f"{peer.kept:.1%}"
        name = architecture(row.name) if row.name.startswith("tv-") else ""
        published = "yes" if name in TORCH_PRUNING_DOES else "no" if name in TORCH_PRUNING_FAILS else ""
        lines.append(f"| {row.name} | {_kept(row)} | {kept} | {peer.status.replace('|', '/')} | {published} |")
    return "\n".join(lines)
