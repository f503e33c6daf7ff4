"""How long models take, measured so that they can be compared, also on a machine that does other things."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..device import Device
from ..reduced import fitted
from ..session import Runnable, Session, open_session

_LOW = 0.25  # the quantile that is told: what a run takes when little else runs
_BUSY_SPREAD, _BUSY_WAIT = 0.4, 1.3
_LEAST_ROUNDS, _LONGER = 15, 4
_SESSIONS = 3
_CACHED = 50.0  # milliseconds: what runs shorter is noticeably slower while caches still hold another model


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one run of a model takes, in milliseconds.

    wall: by the clock
    cpu: of all processors together, spent in this process; like wall the lower quartile of all runs
    spread: distance of the quartiles of wall over its median
    busy: whether other work disturbed the measurement: the runs differ by much, or one thread waited for its processor
    by_cpu: whether cpu compares better than wall
    """

    wall: float
    cpu: float
    spread: float
    busy: bool = False
    by_cpu: bool = False

    @property
    def compared(self) -> float:
        """By the clock, or by processor time: that by which models are compared."""
        return self.cpu if self.by_cpu else self.wall


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
    In its turn a quick model runs twice, and the second run counts: in the first one the caches hold the weights of the
    model before (of MobileNetV2 and its half the half took 0.58 of the time so, and 0.53 when it ran by itself).
    seconds, warmup: wall-clock time for all models together; slow models take up to four times as long, so that each
    runs a few times, and at least one round is always run for each of the two. threads: of one operator, all cores
    where it is None. Models are compared by processor time on one thread of a CPU, and wherever the machine is busy;
    never on a GPU, where a processor only waits.
    """
    sessions = [open_session(fitted(model, feeds), device=device, threads=threads) for model in models]
    _rounds(sessions, feeds, warmup)
    rounds = _rounds(sessions, feeds, seconds, _LEAST_ROUNDS)
    timings = [_timing(np.array(runs), threads) for runs in zip(*rounds, strict=True)]
    on_cpu = all(session.device == "cpu" for session in sessions) and all(timing.cpu for timing in timings)
    by_cpu = on_cpu and (threads == 1 or any(timing.busy for timing in timings))
    return [replace(timing, by_cpu=by_cpu) for timing in timings]


def compare_anew(
    models: Sequence[Runnable],
    feeds: Mapping[str, np.ndarray],
    *,
    seconds: float = 3.0,
    device: Device = "auto",
    threads: int | None = None,
) -> list[Timing]:
    """As `compare`, the median of three sessions of each model: where one's weights come to lie makes 1 to 2 %.

    seconds: for all of them. That of the middle ratio to the first model counts for each.
    """
    share = seconds / _SESSIONS
    found = [compare(models, feeds, seconds=share, device=device, threads=threads) for _ in range(_SESSIONS)]
    first = sorted((timings[0] for timings in found), key=lambda timing: timing.compared)[_SESSIONS // 2]
    ratios = np.median([[ratio(timings[0], timing) for timing in timings] for timings in found], axis=0)
    middle = [sorted(each, key=lambda timing: timing.compared)[_SESSIONS // 2] for each in zip(*found, strict=True)]
    return [_at(first, timing, float(share)) for timing, share in zip(middle, ratios, strict=True)]


def _at(first: Timing, timing: Timing, share: float) -> Timing:
    """The timing, compared by the same clock as the first, at this share of it."""
    if first.by_cpu:
        return replace(timing, cpu=share * first.cpu, by_cpu=True)
    return replace(timing, wall=share * first.wall, by_cpu=False)


def ratio(before: Timing, after: Timing) -> float:
    """After / before, of the same comparison."""
    return after.compared / before.compared


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


def _rounds(
    sessions: Sequence[Session], feeds: Mapping[str, np.ndarray], seconds: float, least: int = 1
) -> list[list[list[float]]]:
    """Wall and processor milliseconds of each session in each round, in the order of `sessions`.

    It ends after `seconds` and `least` rounds, or four times as many seconds.
    """
    order = list(range(len(sessions)))
    rounds = []
    start = time.perf_counter()
    runs = [session.bound(feeds) for session in sessions]
    while not _enough(len(rounds), time.perf_counter() - start, seconds, least):
        times = [[0.0, 0.0] for _ in sessions]
        for index in order:
            if rounds and rounds[-1][index][0] < _CACHED:
                runs[index]()
            begin, used = time.perf_counter(), time.process_time()
            runs[index]()
            times[index] = [1e3 * (time.perf_counter() - begin), 1e3 * (time.process_time() - used)]
        rounds.append(times)
        order.reverse()
    return rounds


def _enough(rounds: int, spent: float, seconds: float, least: int) -> bool:
    return rounds > 0 and spent >= seconds and (rounds >= least or spent >= _LONGER * seconds)
