"""Bounds on what a first run may take: memory, so that it fails and the system kills nobody, and time."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from ...passes.errors import BoundError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_SHARE = 0.9  # of what is available
_LEAST = 1 << 28  # bytes
# Bytes that a run may take, since a graph of a few nodes can ask for any number of them: far more than networks take
# (MViT v2, 16 frames of 224x224: 180 times its input).
_ANYWAY, _OF_WEIGHTS, _OF_INPUT = 4 << 30, 8, 1024
LONGEST_RUN, _GOODBYE = 120.0, 10.0  # seconds: of a first run; that it is waited for when it is ended

Found = TypeVar("Found")


class Stoppable(Protocol):
    """Options of a run (ONNX Runtime's RunOptions): the run ends where `terminate` is set."""

    terminate: bool


def most_memory(weights: int, inputs: int) -> int | None:
    """Bytes that one run of a model may take, given those of its weights and input; None where there are not as many.

    Source of the factors: see _ANYWAY.
    """
    most = _ANYWAY + _OF_WEIGHTS * weights + _OF_INPUT * inputs
    available = _available()
    return None if not available or most > _SHARE * available else most


@contextmanager
def bounded_memory(most: int | None = None) -> Generator[None]:
    """Let the process take `most` bytes at most, or what is available now; all where the system does not say what is.

    The limit is the process's own, so that it is set from the main thread alone.
    """
    available, taken = _available(), _taken()
    if resource is None or not available or not taken or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hardest = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + (most or max(int(_SHARE * available), _LEAST))
    known = [bound for bound in (before, hardest) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([limit, *known]), hardest))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hardest))


def _available() -> int:
    """Bytes that the system could still give; 0 where it does not say."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _taken() -> int:
    """Bytes of address space that the process has; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    except OSError:
        return 0
    return int(pages) * (resource.getpagesize() if resource else 0)


def bounded_time(run: Callable[[], Found], options: Stoppable, name: str) -> Found:
    """What a first run returns: in a thread of its own, so that Ctrl-C is heard, and no longer than LONGEST_RUN.

    Raises BoundError where it takes longer, and what the run raises.
    """
    ended: list[Found] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            ended.append(run())
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(LONGEST_RUN)
        late = thread.is_alive()
    except BaseException:
        options.terminate = True
        thread.join(_GOODBYE)
        raise
    if late:
        options.terminate = True
        thread.join(_GOODBYE)
        options.terminate = False
        raise BoundError(
            f"one run of the model takes more than {LONGEST_RUN:g} s",
            where=name,
            fix="it may hold a loop without end; prune it for a smaller input (--size-of), or a part of it",
        )
    if failed:
        raise failed[0]
    return ended[0]
