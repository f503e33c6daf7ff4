"""What is written appears whole, where it was asked for, and nothing else changes."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune import Budget, prune
from onnx_prune.models import digits_model, lenet5
from onnx_prune.passes.errors import ProofError, ReadError, UsageError
from onnx_prune.passes.graph.files import save_model, write_text
from onnx_prune.passes.graph.reading import read_model

from .small_models import chain, saved_apart, weights_of

HALF = Budget(macs=0.5)


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


def test_links_that_lead_to_one_another_are_neither_written_nor_read(tmp_path):
    (tmp_path / "a.onnx").symlink_to("b.onnx")
    (tmp_path / "b.onnx").symlink_to("a.onnx")
    (tmp_path / "self").symlink_to("self")
    for name in ("a.onnx", "self"):
        with pytest.raises(UsageError, match="a link that leads to itself"):
            write_text(tmp_path / name, "text")
        with pytest.raises(ReadError):
            read_model(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "self"]


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


def test_weights_that_a_copy_of_the_model_reads_stay(tmp_path):
    save_model(scaled(1), tmp_path / "a.onnx", external=True)
    (weights,) = tmp_path.glob("*.data")
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "a.onnx").read_bytes())
    save_model(scaled(2), tmp_path / "a.onnx", external=True)
    assert (factor_of(tmp_path / "a.onnx"), factor_of(tmp_path / "copy.onnx")) == (2, 1)
    assert weights.exists()
    (tmp_path / "copy.onnx").unlink()
    (tmp_path / "broken.onnx").write_bytes(b"\xff")
    save_model(scaled(1), tmp_path / "a.onnx", external=True)
    save_model(scaled(3), tmp_path / "a.onnx", external=True)
    assert not weights.exists()


def test_what_a_model_keeps_its_weights_in_is_not_replaced(tmp_path):
    onnx.save_model(scaled(1), tmp_path / "a.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "link.json").symlink_to("w.bin")
    (tmp_path / "hard.json").hardlink_to(tmp_path / "w.bin")
    for name in ("w.bin", "link.json", "hard.json"):
        with pytest.raises(UsageError, match="a model beside the output keeps its weights there"):
            write_text(tmp_path / name, "a plan")
    (tmp_path / "hard.json").unlink()  # ONNX's own reader refuses weights that have two names
    assert factor_of(tmp_path / "a.onnx") == 1


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


def test_external_weights_stay_external_and_the_source_is_not_touched(tmp_path):
    source = saved_apart(lenet5(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    result = prune(source, budget=HALF, measure=False)
    for name in ("once", "twice"):
        result.save(tmp_path / f"{name}.onnx")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    (data,) = tmp_path.glob("once.onnx.*.data")
    assert data.stat().st_size > 100 * (tmp_path / "once.onnx").stat().st_size
    once, twice = (onnx.load(tmp_path / f"{name}.onnx") for name in ("once", "twice"))
    assert once.graph == twice.graph
    assert all(t.data_location == TensorProto.DEFAULT for t in result.model.graph.initializer)  # still whole in memory
    assert weights_of(once) == weights_of(result.model)


def test_a_failing_checker_leaves_no_file(tmp_path):
    model = chain()
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ProofError, match=r"does not pass onnx\.checker(.|\n)*NoSuchOperator"):
        save_model(model, tmp_path / "cut.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_checker_leaves_the_file_that_was_there(tmp_path):
    there = tmp_path / "cut.onnx"
    there.write_text("an older result")
    model = chain()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(ProofError):
        save_model(model, there)
    assert there.read_text() == "an older result"
    assert list(tmp_path.iterdir()) == [there]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="output folder does not exist"):
        save_model(chain(), tmp_path / "nowhere" / "cut.onnx")


def test_the_same_model_gives_the_same_bytes(tmp_path):
    digests = set()
    for name in ("first", "second"):
        path = prune(digits_model(), budget=HALF, measure=False).save(tmp_path / f"{name}.onnx")
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
