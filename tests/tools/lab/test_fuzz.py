"""The fuzzer finds what ends as a bug, and nothing it draws does."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from onnx_prune.tools.lab.fuzz import CASES, flipped
from onnx_prune.tools.lab.fuzz_models import mutated, seed_models

ENDS = ("done", "exit 2", "exit 3", "exit 4")


@pytest.mark.parametrize("kind", CASES)
def test_what_is_drawn_ends_with_a_result_or_an_error_that_says_all(kind, tmp_path):
    """In a process of its own: this one holds threads of ONNX Runtime, and must not fork."""
    command = [sys.executable, "-m", "onnx_prune.tools.lab.fuzz", kind, "--cases", "6", "--found", str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == f"{kind}: 6 cases, seeds 0 to 5"
    assert [line for line in lines[1:] if line.strip().split(maxsplit=1)[1] not in ENDS] == []
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_found_and_kept(tmp_path):
    script = (
        "from pathlib import Path; import sys; from onnx_prune.tools.lab import fuzz\n"
        "def broken(rng): return b'seed', lambda: [][1]\n"
        "print(fuzz.ending(broken, 3, Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "IndexError" in done.stdout
    assert (tmp_path / "broken-3.bin").read_bytes() == b"seed"
    assert "Traceback" in (tmp_path / "broken-3.txt").read_text()


def test_the_same_seed_draws_the_same():
    import onnx

    for data in seed_models().values():
        model = onnx.load_model_from_string(data)
        drawn = [mutated(model, np.random.default_rng(7)).SerializeToString() for _ in range(2)]
        assert drawn[0] == drawn[1] != data
        assert flipped(data, np.random.default_rng(7)) == flipped(data, np.random.default_rng(7)) != data
