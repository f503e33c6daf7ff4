"""The command line in a child process, so that a crash of a native library ends in words and an exit code.

ONNX Runtime, which runs models that may come from anyone, ends a process on some of them (an assertion, a null
pointer), and Linux kills one that takes all memory. The parent waits, passes signals on, and says what happened.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import mmap
import os
import signal
import sys
import time
from typing import NoReturn

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
_FROM_A_PROCESS = 0  # SI_USER; what comes from the terminal reaches the child anyway
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_UNREADABLE = 3
_GRACE = 15.0  # seconds from a signal on in which the child ends by itself; native code hears none while it computes

_CRASHED = """onnx-prune: a native library crashed on this model ({name})
  where: most likely ONNX Runtime, which runs the model as it is; nothing more was written
  fix:   check that ONNX Runtime runs the model, export it again, or try another version of onnxruntime"""
_KILLED = """onnx-prune: the run was killed from outside ({name}), most likely for want of memory
  where: this machine, or what is allowed to the process; nothing more was written
  fix:   take fewer samples (--samples), smaller inputs (--size-of), or a machine with more memory"""

_LEFT = """onnx-prune: something in the run ended its process with code {code}, by os._exit or exit
  where: most likely a function of yours that yields data or measures, or a library that says above what it lacks
  fix:   let it return, or raise an exception; look whether anything was written"""

_STOPPED = "onnx-prune: interrupted while a native library was at work; nothing more was written"


def in_a_child() -> None:
    """Go on in a child process; the parent never returns, and ends as the child does.

    Only on Linux; not where ONNX_PRUNE_DEBUG is set, for debuggers.
    """
    if not hasattr(signal, "sigwaitinfo") or sys.platform != "linux" or os.environ.get("ONNX_PRUNE_DEBUG"):
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, signal.SIGCHLD})
    parent, ended = os.getpid(), mmap.mmap(-1, 1)  # the child and its parent share it
    try:
        child = os.fork()
    except OSError:  # no more processes are allowed: then without
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    if child:
        _wait(child, ended)
    atexit.register(_ended_by_itself, ended, os.getpid())
    _die_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ended_by_itself(ended: mmap.mmap, child: int) -> None:
    """Python comes to its end: what os._exit of the user's own code, or a library, does not let it."""
    if os.getpid() == child:
        ended[0] = 1


def _die_with(parent: int) -> None:
    """Let the child get SIGTERM when its parent is gone."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def _wait(child: int, by_itself: mmap.mmap) -> NoReturn:
    told, until = 0, math.inf
    while True:
        got = _signal_before(until)
        if got is None:
            os.kill(child, signal.SIGKILL)
            until = math.inf
        elif got.si_signo in _SIGNALS:
            if got.si_signo != signal.SIGINT or got.si_code == _FROM_A_PROCESS:
                os.kill(child, got.si_signo)
            if not told:
                told, until = got.si_signo, time.monotonic() + _GRACE
        else:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended and os.WIFEXITED(status) and not (told or by_itself[0]):
                _say(_LEFT.format(code=os.WEXITSTATUS(status)))
                os._exit(_UNREADABLE)
            if ended:
                _end(status, told)


def _signal_before(until: float) -> signal.struct_siginfo | None:
    awaited = {*_SIGNALS, signal.SIGCHLD}
    if math.isinf(until):
        return signal.sigwaitinfo(awaited)
    return signal.sigtimedwait(awaited, max(until - time.monotonic(), 0))


def _end(status: int, told: int) -> NoReturn:
    """End as the child did; told: the first signal that was to end it, 0 where there was none.

    A library whose import it interrupts may crash, which is no fault of the model.
    """
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if told and number not in _SIGNALS:
        _say(_STOPPED)
        number = told
    if number in _SIGNALS:
        os._exit(128 + number)
    text = _KILLED if number == signal.SIGKILL else _CRASHED
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    _say(text.format(name=name))
    os._exit(_UNREADABLE)


def _say(text: str) -> None:
    """On standard error; what the child left in the folder for temporary files goes."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
    with contextlib.suppress(OSError):
        from ...passes.graph.scratch import sweep

        sweep()
