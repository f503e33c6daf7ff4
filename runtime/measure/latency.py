"""How long models take, measured so that they can be compared, also on a machine that does other things."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..session import Device, Runnable, Session, open_session

_LOW = 0.25  # the quantile that is told: what a run takes when little else runs
_BUSY_SPREAD, _BUSY_WAIT = 0.4, 1.3


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one run of a model takes, in milliseconds.

    wall: by the clock; cpu: of all processors together, spent in this process; both the lower quartile of all runs.
    spread: distance of the quartiles of wall over its median. busy: whether other work disturbed the measurement: the
    runs differ by much, or one thread waited for its processor; then cpu compares better than wall.
    """

    wall: float
    cpu: float
    spread: float
    busy: bool = False


def compare(
    models: Sequence[Runnable],
    feeds: Mapping[str, np.ndarray],
    *,
    seconds: float = 1.0,
    warmup: float = 0.3,
    device: Device = "auto",
    threads: int | None = None,
) -> list[Timing]:
    """Return how long each model takes on `feeds`, with every optimisation on.

    The models run in turns, forwards and then backwards, so that whatever else the machine does falls on all of them.
    seconds, warmup: wall-clock time for all models together; at least one round is always run for each of the two.
    threads: of one operator, all cores where it is None.
    """
    sessions = [open_session(model, device=device, threads=threads) for model in models]
    _rounds(sessions, feeds, warmup)
    return [_timing(np.array(runs), threads) for runs in zip(*_rounds(sessions, feeds, seconds), strict=True)]


def ratio(before: Timing, after: Timing) -> float:
    """After / before: by the clock, or by processor time where the machine was busy."""
    return after.cpu / before.cpu if (before.busy or after.busy) and before.cpu else after.wall / before.wall


def machine() -> str:
    """The processor's name, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _timing(runs: np.ndarray, threads: int | None) -> Timing:
    """runs: (rounds, 2), wall and processor milliseconds."""
    low, middle, high = np.quantile(runs[:, 0], [_LOW, 0.5, 1 - _LOW])
    cpu, usual = np.quantile(runs[:, 1], [_LOW, 0.5])
    spread = float((high - low) / middle) if middle else 0.0
    waited = threads == 1 and middle > _BUSY_WAIT * usual > 0
    return Timing(float(low), float(cpu), spread, bool(spread > _BUSY_SPREAD or waited))


def _rounds(sessions: Sequence[Session], feeds: Mapping[str, np.ndarray], seconds: float) -> list[list[list[float]]]:
    """Wall and processor milliseconds of each session in each round, in the order of `sessions`."""
    order = list(range(len(sessions)))
    rounds = []
    end = time.perf_counter() + seconds
    while not rounds or time.perf_counter() < end:
        times = [[0.0, 0.0] for _ in sessions]
        for index in order:
            start, spent = time.perf_counter(), time.process_time()
            sessions[index].run(feeds)
            times[index] = [1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - spent)]
        rounds.append(times)
        order.reverse()
    return rounds
