"""What can fail late fails before the work, with the user's own fault shown as theirs."""

import shutil
from collections import namedtuple
from pathlib import Path

import onnx
import onnx_prune.pipeline.prune
import pytest
from onnx_prune import models

DATA = [str(path) for path in models.digits_data()]  # test, calibration


@pytest.fixture
def no_work(monkeypatch):
    """Reading a model is the first thing that a run does: here it must not come to that."""

    def read(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(onnx_prune.pipeline.prune, "read", read)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-o", "/proc/out.onnx"], 2, "the output cannot be written"),
        (["--plan", "/proc/plan.json"], 2, "the output cannot be written"),
        (["--evaluate", "nowhere"], 3, "there is no such file"),
        (["--evaluate", "digits.onnx"], 2, "this kind of data cannot be read"),
        (["--seed", "-1"], 2, "--seed"),
        (["--resize", "0"], 2, "no size of an image"),
        (["--crop", "-3"], 2, "no size of an image"),
        (["--scale", "nan"], 2, "not a finite number"),
        (["--evaluate", DATA[0], "--max-drop", "nan"], 2, "not a share"),
        (["--evaluate", DATA[0], "--max-drop", "-5%"], 2, "not a share"),
    ],
)
def test_it_is_said_before_the_work(run, files, no_work, arguments, code, said):
    found, out, err = run("digits.onnx", "--no-latency", *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert files() == ["digits.onnx"]


def test_there_must_be_room_for_the_result(run, no_work, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 1000))
    code, _, err = run("digits.onnx")
    assert code == 2
    assert "no room for the result" in err


@pytest.mark.parametrize(
    "text", ["--align 99999999999999999999", "--allocation trim:deviations=nan", "--size-of nobody=3"]
)
def test_no_number_is_a_bug_of_ours(run, text):
    code, _, err = run("digits.onnx", "--no-latency", "--calibration", "none", *text.split())
    assert code == 2
    assert "bug" not in err


@pytest.mark.parametrize("change", ["input", "output", "size"])
def test_a_teacher_of_another_interface_is_refused(run, change):
    other = onnx.load("digits.onnx")
    if change == "size":
        other.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16
    else:
        value = getattr(other.graph, change)[0]
        old, value.name = value.name, "renamed"
        for node in other.graph.node:
            for names in (node.input, node.output):
                names[:] = ["renamed" if name == old else name for name in names]
    onnx.save(other, "teacher.onnx")
    code, _, err = run("finetune", "digits.onnx", "--teacher", "teacher.onnx", "--train", DATA[1])
    assert code == 2
    assert "another interface" in err


LOADER = """
import numpy as np
def fails():
    raise RuntimeError("my own fault")
def late():
    yield {"input": np.zeros((8, 1, 8, 8), np.float32)}
    raise KeyError("late")
"""


@pytest.mark.parametrize(("name", "said"), [("fails", "RuntimeError: my own fault"), ("late", "KeyError: 'late'")])
def test_the_users_own_exception_is_shown_as_theirs(run, tmp_path, name, said):
    (tmp_path / "my_loader.py").write_text(LOADER)
    code, _, err = run("digits.onnx", "--no-latency", "--calibration", f"my_loader:{name}")
    assert code == 3
    assert said in err
    assert "my_loader.py, line" in err
    assert "bug of ours" not in err


def test_a_budget_that_holds_already_is_said(run):
    out = run("digits.onnx", "--macs", "2G", "--calibration", "none")[1]
    assert "already below the budget" in out
    assert "no faster" not in out


def test_the_size_that_numbers_are_for_is_shown_where_it_was_chosen(run):
    model = onnx.load("digits.onnx")
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, "free.onnx")
    given = ["--size-of", "height=16", "--size-of", "width=24"]
    assert "input 1 x 1 x 16 x 24" in run("inspect", "free.onnx", *given)[1]
    assert "input 1 x 1 x 16 x 24" in run("free.onnx", "--calibration", "none", "--no-latency", *given)[1]
    assert "this size" not in run("inspect", "digits.onnx")[1]


def test_long_names_do_not_break_the_tables(run):
    model = onnx.load("digits.onnx")
    for index, node in enumerate(model.graph.node):
        node.name = ";".join(["StatefulPartitionedCall", *"abcdefghijklmnopqrstuvwxyz", "layer" * 12, str(index)])
    renamed = {t.name: f"w{i}" for i, t in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = renamed[tensor.name]
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    onnx.save(model, "long.onnx")
    rows = [line for line in run("inspect", "long.onnx")[1].splitlines() if "Stateful" in line]
    assert len(rows) == 6
    assert all("…" in row and len(row) <= 100 for row in rows)


def test_outputs_are_compared_in_words(run):
    out = run("evaluate", "digits.onnx", DATA[0], "--reference", "digits.onnx")[1]
    assert "{" not in out
    assert "KL divergence of the outputs" in out


def test_most_of_the_macs_is_not_all(run):
    out = run("inspect", "digits.onnx")[1]
    assert "at most 100%" not in out
    assert "at most 99.9" in out


def test_the_seconds_of_a_fine_tuned_run_are_those_of_all_of_it(run):
    import json

    result = json.loads(
        run("digits.onnx", "--criterion", "l1", "--no-latency", "--finetune", DATA[1], "--epochs", "1", "--json")[1]
    )
    assert result["seconds"] > 0.3
    assert Path("digits.pruned.onnx").exists()
