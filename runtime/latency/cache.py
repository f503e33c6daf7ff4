"""What pieces were timed to take, kept between runs: one file for each machine, device, threads and ONNX Runtime.

The processor's name does not tell what it can: virtual machines of several generations bear the same one, and may hide
instructions. So the blocks in which ONNX Runtime computes here are part of the file's name too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from ...passes.errors import OnnxPruneError
from ...passes.graph.files import write_text
from ..device import runtime_version
from ..measure.latency import machine
from .blocked import block_size
from .pieces import Bench, Piece, Widths

Times = dict[Piece, dict[Widths, float]]
_FORMAT, _MOST = "onnx-prune latencies 3", 4000  # pieces in a file; the oldest go
_SETTLED = "settled"
_LARGEST = 64 << 20  # bytes of a file that is read: 4,000 pieces take 2 MB
_PATIENCE = 5.0  # seconds to wait for another process that writes
_FOLDER = "ONNX_PRUNE_CACHE"  # the environment variable that names another folder; "" keeps nothing


def cached(wanted: Mapping[Piece, list[Widths]], bench: Bench) -> Times:
    """Of these pieces what was timed before, where all the widths that are wanted were."""
    known = _read(_file(bench))
    found: Times = {}
    for piece, pairs in wanted.items():
        times = known.get(_key(piece, bench), {})
        if not times.get(_SETTLED):
            continue
        names = {widths: f"{widths[0]},{widths[1]}" for widths in pairs}
        if all(_is_time(times.get(name)) for name in names.values()):
            found[piece] = {widths: float(times[name]) for widths, name in names.items()}
    return found


def keep(times: Times, bench: Bench, settled: Collection[Piece]) -> Times:
    """Add these to the file, beside what other processes add; nothing happens where it cannot be written.

    settled: those that need not be timed again. Of what is timed again the quickest time of each width counts: the
    times that are returned.
    """
    path = _file(bench)
    if path is None or not times:
        return times
    before = _read(path)
    times = {piece: _quicker(pairs, before.get(_key(piece, bench), {})) for piece, pairs in times.items()}
    new = {
        _key(piece, bench): {f"{r},{w}": round(ms, 6) for (r, w), ms in pairs.items()} | {_SETTLED: piece in settled}
        for piece, pairs in times.items()
    }
    with contextlib.suppress(OSError, OnnxPruneError, NotImplementedError):  # a file system that knows no locks
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=_PATIENCE):
            pieces = _read(path)
            for key, pairs in new.items():
                pieces[key] = {**pieces.pop(key, {}), **pairs}
            pieces = dict(list(pieces.items())[-_MOST:])
            write_text(path, json.dumps({"format": _FORMAT, "machine": machine(), "pieces": pieces}))
    return times


def _quicker(pairs: Mapping[Widths, float], before: Mapping[str, float]) -> dict[Widths, float]:
    known = {name: ms for name, ms in before.items() if _is_time(ms)}
    return {(r, w): min(ms, known.get(f"{r},{w}", ms)) for (r, w), ms in pairs.items()}


def _is_time(ms: object) -> bool:
    """Whether it is a number of milliseconds that something can take; what a damaged file holds need not be."""
    return isinstance(ms, int | float) and not isinstance(ms, bool) and 0 < ms < math.inf


def cache_folder() -> Path | None:
    """Where the user's caches are on this system; None where the user wants none, or there is no home."""
    chosen = os.environ.get(_FOLDER)
    if chosen is not None:
        return Path(chosen) if chosen else None
    found = user_cache_path("onnx-prune", appauthor=False)
    return found if found.is_absolute() else None


def _file(bench: Bench) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    threads, block = bench.threads or "all", block_size(bench.device)
    where = f"{machine()} {bench.device} {threads} blocks of {block} {runtime_version()}"
    return folder / f"latency-{re.sub(r'[^A-Za-z0-9.]+', '-', where)}.json"


def _key(piece: Piece, bench: Bench) -> str:
    """Graphs of about the same size are alike: what counts is which cache holds their weights."""
    text = f"{piece.key} {piece.whole} {bench.bytes.bit_length() // 2} {bench.opset}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _read(path: Path | None) -> dict[str, dict[str, float]]:
    """Nothing where there is no such file, or it is not one of ours."""
    try:
        known = path is not None and path.is_file() and path.stat().st_size <= _LARGEST
        data = json.loads(path.read_text(encoding="utf-8") if path is not None and known else "")
    except (OSError, ValueError, RecursionError):
        return {}
    pieces = data.get("pieces") if isinstance(data, dict) and data.get("format") == _FORMAT else None
    return {k: v for k, v in pieces.items() if isinstance(v, dict)} if isinstance(pieces, dict) else {}
