"""A bound on what a first run may take of the machine's memory: it fails, and the system kills nobody."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_SHARE = 0.9  # of what is available
_LEAST = 1 << 28  # bytes


@contextmanager
def bounded_memory() -> Generator[None]:
    """Let the process take no more than what is available now; where the system says nothing of it, as it is.

    The limit is the process's own, so that it is set from the main thread alone.
    """
    available, taken = _available(), _taken()
    if resource is None or not available or not taken or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hardest = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + max(int(_SHARE * available), _LEAST)
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
