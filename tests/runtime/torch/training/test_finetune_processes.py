"""Killed processes leave nothing broken; several processes are as one."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
SCRIPT = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder that both jobs have filled, and what was printed."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_run_killed_at_ten_random_moments_ends_with_the_same_bytes(ran):
    folder, printed = ran
    reached = ast.literal_eval(printed)
    assert len(reached) == 10
    assert reached == sorted(reached)  # no finished epoch, nor step, is lost
    assert reached[-1] > (0, 0)
    assert (folder / "killed.onnx").read_bytes() == (folder / "unbroken.onnx").read_bytes()
    assert [file.name for file in (folder / "run").iterdir()] == ["checkpoint.pt"]


def test_two_processes_end_where_one_does_with_the_same_batch(ran):
    folder, _ = ran
    one, two = (onnx.load(folder / f"{name}.onnx") for name in ("one", "two"))
    for a, b in zip(one.graph.initializer, two.graph.initializer, strict=True):
        x, y = numpy_helper.to_array(a), numpy_helper.to_array(b)
        assert np.abs(x - y).max() <= 1e-6 * max(np.abs(x).max(), 1), a.name
