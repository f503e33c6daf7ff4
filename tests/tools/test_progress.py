"""What is said while a run works: how long it takes still, where it goes, and how to silence it."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from onnx_prune import models
from onnx_prune.tools import progress
from onnx_prune.tools.progress import Pace, progress_shown


def test_a_counted_stage_says_how_long_it_takes_still():
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.words("calibrating: 0 of 100 samples") == "calibrating: 0 of 100 samples"
    now[0] = 10.0
    assert pace.words("calibrating: 25 of 100 samples") == "calibrating: 25 of 100 samples, 30 s left"
    now[0] = 11.0
    assert pace.words("proving") == "proving"
    assert pace.words("calibrating: 30 of 100 samples") == "calibrating: 30 of 100 samples"  # a pace of its own


def test_a_stage_that_says_nothing_for_long_is_told_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    with progress_shown() as shown:
        shown("proving")
        said, until = "", time.monotonic() + 20
        while "s: proving" not in said and time.monotonic() < until:
            time.sleep(0.02)
            said += capsys.readouterr().err
    assert "s: proving" in said
    monkeypatch.setattr(progress, "EVERY", 10)
    with progress_shown() as shown:
        shown("proving")
    assert capsys.readouterr().err == ""


def test_a_line_that_stays_stands_alone_on_a_terminal():
    """Not behind what the spinner shows: both were on one line."""
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60)
    with console.status("starting") as status:
        shown = progress._Spinner(status)
        shown("training: 3 of 9 steps")
        shown.say("epoch 1  loss 0.5 [x]")
    lines = [re.sub("\x1b\\[[?0-9;]*[a-zA-Z]", "", line.split("\r")[-1]) for line in screen.getvalue().split("\n")]
    assert "epoch 1  loss 0.5 [x]" in lines


def test_quiet_says_nothing_and_writes_the_files(run, files):
    code, out, err = run("digits.onnx", "--no-latency", "--calibration", "none", "--quiet")
    assert (code, out, err) == (0, "", "")
    assert files() == ["digits.onnx", "digits.pruned.onnx"]
    assert run("missing.onnx", "--quiet")[2] != ""


def test_verbose_says_every_stage(run):
    err = run("digits.onnx", "--no-latency", "--calibration", "none", "--verbose")[2]
    for stage in ("reading the model", "choosing channels", "cutting", "proving"):
        assert f"s: {stage}" in err


def test_the_log_file_has_stages_messages_and_the_end(run, tmp_path):
    for _ in range(2):
        run("digits.onnx", "--no-latency", "--calibration", "none", "--quiet", "--log-file", "run.log")
    run("digits.onnx", "--macs", "many", "--log-file", "run.log")
    text = (tmp_path / "run.log").read_text()
    assert text.count("proving") == 2
    assert text.count("wrote digits.pruned.onnx") == 2
    assert "accuracy is not protected" in text
    assert "'many' is not a budget" in text
    assert run("digits.onnx", "--log-file", "nowhere/run.log")[0] == 2


@pytest.mark.parametrize("colour", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_no_color_holds(colour, tmp_path):
    command = [sys.executable, "-m", "onnx_prune", "inspect", str(models.digits_model())]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **colour}, cwd=tmp_path
    )
    assert "\x1b[3" not in done.stdout + done.stderr
