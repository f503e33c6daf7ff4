"""The bench measures what it says, and fails where what it runs fails."""

from __future__ import annotations

import os
import sys

import click
import pytest
from click.testing import CliRunner
from onnx_prune.models import digits_model
from onnx_prune.tools.lab.bench import bench, child

posix = pytest.mark.skipif(os.name != "posix", reason="memory of a child process is asked for in the POSIX way")


@pytest.mark.parametrize("arguments", [["pass"], ["latency"], pytest.param(["command", "--no-latency"], marks=posix)])
def test_each_measurement_prints_a_table(arguments):
    result = CliRunner().invoke(bench, [arguments[0], str(digits_model()), "--runs", "1", *arguments[1:]])
    assert result.exit_code == 0, result.output
    assert "CPU" in result.output
    assert ("MB" in result.output) == (arguments[0] == "command")


@posix
def test_time_and_memory_are_those_of_the_child():
    wall, cpu, peak = child([sys.executable, "-c", "import time; held = bytearray(200 << 20); time.sleep(0.3)"])
    assert wall > 0.3
    assert cpu < wall
    assert 200 << 20 < peak < 400 << 20


@posix
def test_a_child_that_fails_is_told():
    with pytest.raises(click.ClickException, match="exit code 3"):
        child([sys.executable, "-c", "raise SystemExit(3)"])
