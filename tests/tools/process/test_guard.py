"""A crash of a native library ends in words and with 3; what else a run does is as without the child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no child process elsewhere")

BEGIN = """
import os, resource, signal, sys, time
from onnx_prune.tools.process.guard import in_a_child
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
parent = os.getpid()
in_a_child()
"""
READY = "print('ready', flush=True); time.sleep(60)"


def started(code):
    environment = {name: value for name, value in os.environ.items() if name != "ONNX_PRUNE_DEBUG"}
    command = [sys.executable, "-c", BEGIN + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT"), (signal.SIGKILL, "want of memory")],
)
def test_a_crash_ends_in_words(number, words):
    with started(f"os.kill(os.getpid(), {int(number)})") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert words in errors
    assert "where:" in errors
    assert "fix:" in errors


@pytest.mark.parametrize("crash", [signal.SIGSEGV, signal.SIGABRT])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_library_that_crashes_as_it_is_interrupted_is_no_fault_of_the_model(number, code, crash):
    with started(f"signal.signal({int(number)}, lambda *_: os.kill(os.getpid(), {int(crash)})); {READY}") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "interrupted while a native library was at work" in errors
    assert "crashed" not in errors


@pytest.mark.parametrize("code", [0, 4, 130])
def test_the_code_and_the_output_are_those_of_the_child(code):
    with started(f"print(os.getpid() != parent); sys.exit({code})") as process:
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, "True\n")


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("ends", ["os._exit", "__import__('ctypes').CDLL(None).exit"])
def test_a_run_that_is_left_by_os_exit_is_no_success(code, ends):
    with started(f"{ends}({code})") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"ended its process with code {code}" in errors
    assert "fix:" in errors


def test_processes_of_the_run_may_end_as_they_like():
    """Workers end by os._exit, and by themselves before the run does."""
    for ends in ("os._exit(0)", "sys.exit(0)"):
        with started(f"pid = os.fork()\nif not pid: {ends}\nos.waitpid(pid, 0)\nos._exit(0)") as process:
            assert process.wait(timeout=60) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_reaches_the_child(number):
    with started(f"signal.signal({int(number)}, lambda *_: sys.exit(77)); {READY}") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=60) == 77


def test_the_child_of_a_killed_parent_is_told_to_end():
    told = "signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), os._exit(0)))"
    with started(f"{told}; {READY}") as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.readline() == "told\n"


def test_with_the_debug_switch_there_is_no_child(monkeypatch):
    monkeypatch.setenv("ONNX_PRUNE_DEBUG", "1")
    command = [sys.executable, "-c", BEGIN + "print(os.getpid() == parent)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


def test_a_child_that_hears_no_signal_is_ended_after_a_while():
    deaf = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); "
    short = "import onnx_prune.tools.process.guard as guard; guard._GRACE = 0.2\n"
    environment = {name: value for name, value in os.environ.items() if name != "ONNX_PRUNE_DEBUG"}
    command = [sys.executable, "-c", BEGIN.replace("parent =", short + "parent =") + deaf + READY]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted while a native library was at work" in errors


def test_ctrl_c_before_the_command_line_is_read_is_one_line():
    """The import of the command line sends the signal: no moment is earlier that is ours."""
    begin = (
        "import os, signal, sys, types\n"
        "class Early:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'onnx_prune.tools.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Early())\n"
        "from onnx_prune.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", begin], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "onnx-prune: interrupted; nothing more was written\n")
