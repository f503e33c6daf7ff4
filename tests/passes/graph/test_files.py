"""What is written appears whole, where it was asked for, and nothing else changes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.passes.graph.files import publish, save_model, write_text
from onnx_prune.passes.graph.reading import read_model


def scaled(factor):
    """y = x * w, with w = factor 1000 times: so large that it goes into a file of its own."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", 1, [1000])],
        [helper.make_tensor_value_info("y", 1, [1000])],
        [numpy_helper.from_array(np.full(1000, factor, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def factor_of(path):
    return numpy_helper.to_array(onnx.load(path).graph.initializer[0])[0]


def test_the_mode_of_a_file_that_is_replaced_stays(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old")
    path.chmod(0o600)
    write_text(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "folder" / "real.json")
    write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "folder" / "real.json").read_text() == "new"


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UsageError, match="a device or a pipe"):
            write_text(path, "new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_pipe_or_a_device_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ReadError, match="a device or a pipe"):
            read_model(path)


def test_names_that_are_too_long_are_refused(tmp_path):
    with pytest.raises(ReadError, match="too long"):
        write_text(tmp_path / ("x" * 300), "new")
    with pytest.raises(ReadError, match="cannot be read"):
        read_model(tmp_path / ("x" * 300))
    write_text(tmp_path / ("x" * 250), "new")  # as long as a name may be: the temporary file needs no more


def test_weights_beside_a_model_are_named_by_their_digest(tmp_path):
    path = tmp_path / "m.onnx"
    save_model(scaled(1), path, external=True)
    (first,) = tmp_path.glob("*.data")
    save_model(scaled(1), path, external=True)
    assert list(tmp_path.glob("*.data")) == [first]
    save_model(scaled(2), path, external=True)
    (second,) = tmp_path.glob("*.data")
    assert (factor_of(path), second != first) == (2, True)
    save_model(scaled(3), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


def test_weights_of_other_models_stay(tmp_path):
    (tmp_path / "m.onnx.data").write_bytes(b"another model's")
    save_model(scaled(1), tmp_path / "m.onnx", external=True)
    save_model(scaled(2), tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx.data").read_bytes() == b"another model's"


def test_a_run_that_is_killed_between_the_two_files_leaves_the_old_pair(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    save_model(scaled(1), path, external=True)
    real = Path.replace

    def replace(self, target):
        if self.name.endswith(".onnx"):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_model(scaled(2), path, external=True)
    assert factor_of(path) == 1


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


def test_external_weights_behind_a_link_out_of_the_folder_are_refused(tmp_path):
    for folder in ("model", "elsewhere"):
        (tmp_path / folder).mkdir()
    path = save_model(scaled(1), tmp_path / "model" / "m.onnx", external=True)
    (data,) = path.parent.glob("*.data")
    data.rename(tmp_path / "elsewhere" / "w")
    data.symlink_to(tmp_path / "elsewhere" / "w")
    with pytest.raises(ReadError, match="leads out of the model's folder"):
        read_model(path)


def test_a_cache_whose_files_are_links_into_one_folder_is_read(tmp_path):
    for folder in ("blobs", "snapshot"):
        (tmp_path / folder).mkdir()
    path = save_model(scaled(1), tmp_path / "snapshot" / "m.onnx", external=True)
    for file in [*path.parent.iterdir()]:
        file.rename(tmp_path / "blobs" / file.name)
        file.symlink_to(tmp_path / "blobs" / file.name)
    assert numpy_helper.to_array(read_model(path)[0].graph.initializer[0])[0] == 1
