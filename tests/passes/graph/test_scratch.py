"""What a run that was killed left behind goes with the next; what a running one holds stays."""

from __future__ import annotations

import subprocess
import sys

from onnx_prune.passes.graph.files import publish, write_text


def test_what_a_killed_run_left_goes_with_the_next(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from onnx_prune.passes.graph.files import publish\n"
        "publish(Path(sys.argv[1]), lambda file: (file.write_text('half'), os.kill(os.getpid(), 9)))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "out.json")], check=False)
    assert [p.name.startswith(".onnx-prune-") for p in tmp_path.iterdir()] == [True]
    (tmp_path / ".onnx-prune-of-another-machine").mkdir()
    write_text(tmp_path / "out.json", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".onnx-prune-of-another-machine", "out.json"]


def test_the_folder_of_a_running_process_is_left_alone(tmp_path):
    def write(file):
        write_text(tmp_path / "other.json", "another run at the same time")
        file.write_text("whole")

    publish(tmp_path / "out.json", write)
    assert (tmp_path / "out.json").read_text() == "whole"
