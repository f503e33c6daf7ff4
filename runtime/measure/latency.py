"""How long models take, measured so that they can be compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from ..session import Device, Session, Source, open_session


def compare(
    models: Sequence[Source],
    feeds: Mapping[str, np.ndarray],
    *,
    seconds: float = 1.0,
    warmup: float = 0.3,
    device: Device = "auto",
    threads: int | None = None,
) -> list[float]:
    """Return the median latency of each model on `feeds`, in milliseconds, with every optimisation on.

    The models run in turns, forwards and then backwards, so that whatever else the machine does falls on all of them.
    seconds, warmup: wall-clock time for all models together; at least one round is always run for each of the two.
    """
    sessions = [open_session(model, device=device, threads=threads) for model in models]
    _rounds(sessions, feeds, warmup)
    return [statistics.median(times) for times in zip(*_rounds(sessions, feeds, seconds), strict=True)]


def _rounds(sessions: Sequence[Session], feeds: Mapping[str, np.ndarray], seconds: float) -> list[list[float]]:
    """Milliseconds of each session in each round, in the order of `sessions`."""
    order = list(range(len(sessions)))
    rounds = []
    end = time.perf_counter() + seconds
    while not rounds or time.perf_counter() < end:
        times = [0.0] * len(sessions)
        for index in order:
            start = time.perf_counter()
            sessions[index].run(feeds)
            times[index] = 1e3 * (time.perf_counter() - start)
        rounds.append(times)
        order.reverse()
    return rounds
