"""The files that a run keeps beside its result touch nothing that it reads or makes; names are shown, not obeyed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import onnx
import pytest
from onnx_prune import models
from onnx_prune.tools import cli

BARE = ["--no-latency", "--calibration", "none"]
MODULE = "import numpy\ndef batches():\n    yield {'x': numpy.zeros((32, 1, 8, 8), 'f4')}\n"


@pytest.fixture
def unchanged(tmp_path):
    """Checks that these files are what they were."""
    held: dict[str, bytes] = {}

    def check(*names):
        if not held:
            held.update({name: (tmp_path / name).read_bytes() for name in names})
        assert {name: (tmp_path / name).read_bytes() for name in held} == held

    return check


@pytest.mark.parametrize("flag", ["--log-file", "--save-config"])
@pytest.mark.parametrize("name", ["digits.onnx", "link", "hard", "c.npz", "digits.pruned.onnx", "p.json", "given.toml"])
def test_the_log_and_the_saved_settings_change_nothing_that_is_read_or_made(run, tmp_path, unchanged, flag, name):
    (tmp_path / "c.npz").write_bytes(models.digits_data()[1].read_bytes())
    (tmp_path / "digits.pruned.onnx").write_text("an older result")
    (tmp_path / "given.toml").write_text("seed = 1\n")
    (tmp_path / "link").symlink_to("digits.onnx")
    (tmp_path / "hard").hardlink_to("digits.onnx")
    unchanged("digits.onnx", "c.npz", "digits.pruned.onnx", "given.toml")
    given = ["digits.onnx", "--calibration", "c.npz", "--config", "given.toml", "--plan", "p.json", "--no-latency"]
    code, _, err = run(*given, flag, name)
    assert code == 2
    assert "the output is the input" in err
    assert name in err
    unchanged()


WRITTEN = ("output", "plan_file", "report", "save_moments")
MORE = {"apply": ["p.json"], "finetune": ["--train", "c.npz"], "sweep": ["--macs", "50%", "--no-models"]}
FLAGS = [
    (name, parameter.opts[-1])
    for name, command in sorted(cli.cli.commands.items())
    for parameter in command.params
    if parameter.name in WRITTEN and name not in ("compare", "demo") and (name, parameter.name) != ("sweep", "output")
]  # a comparison has a folder, a demonstration reads no file, a sweep adds the budget to the name


@pytest.mark.parametrize(("command", "flag"), FLAGS)
@pytest.mark.parametrize("name", ["digits.onnx", "./link", "w.data", "data", "hard"])
def test_no_result_of_a_command_takes_the_place_of_what_it_reads(run, tmp_path, unchanged, command, flag, name):
    (tmp_path / "c.npz").write_bytes(models.digits_data()[1].read_bytes())
    onnx.save_model(onnx.load("digits.onnx"), "digits.onnx", save_as_external_data=True, location="w.data")
    (tmp_path / "link").symlink_to("digits.onnx")
    (tmp_path / "p.json").write_text("{}")
    data = "p.json" if command == "apply" else "c.npz"
    (tmp_path / "hard").hardlink_to(data)
    unchanged("digits.onnx", "c.npz", "w.data", "p.json")
    given = ["--calibration", "c.npz"] if command in ("prune", "sweep") else []
    code, _, err = run(command, "digits.onnx", *MORE.get(command, []), *given, flag, data if name == "data" else name)
    assert code == 2
    assert "the output is the input" in err
    unchanged()


def test_the_state_of_a_training_is_not_kept_among_its_data(run, tmp_path, unchanged):
    (tmp_path / "cut.onnx.finetune").mkdir()
    (tmp_path / "cut.onnx.finetune" / "c.npz").write_bytes(models.digits_data()[1].read_bytes())
    unchanged("cut.onnx.finetune/c.npz")
    for data in ("cut.onnx.finetune", "cut.onnx.finetune/c.npz"):
        for given in (["digits.onnx", "--finetune", data], ["finetune", "digits.onnx", "--train", data]):
            code, _, err = run(*given, "--updates", "1", "-o", "cut.onnx")
            assert code == 2
            assert "among what it reads" in err
    unchanged()


def test_a_comparison_is_not_kept_among_what_it_reads(run, tmp_path, unchanged):
    (tmp_path / "data").mkdir()
    for name in ("data/c.npz", "table.csv"):
        (tmp_path / name).write_bytes(models.digits_data()[1].read_bytes())
    (tmp_path / "terms").write_text('methods = "l1"\n')
    unchanged("data/c.npz", "table.csv", "terms")
    given = ["compare", "digits.onnx", "--methods", "l1"]
    assert run(*given, "--evaluate", "data", "-o", "data/deep")[0] == 2
    assert run(*given, "--evaluate", "table.csv", "-o", ".")[0] == 2
    assert run(*given, "--evaluate", "data", "--config", "terms", "-o", ".")[0] == 2
    unchanged()
    assert not (tmp_path / "data" / "deep").exists()


@pytest.mark.parametrize("model", [".", "/", ".."])
def test_a_folder_is_no_model(run, model):
    data = str(models.digits_data()[0])
    for given in ([model], ["finetune", model, "--train", data], ["sweep", model, "--macs", "50%"]):
        assert run(*given)[0] in (2, 3)
    assert run("compare", model, "--methods", "l1", "--evaluate", data)[0] in (2, 3)


def test_commands_that_write_no_model_keep_their_model_as_well(run, unchanged):
    unchanged("digits.onnx")
    assert run("inspect", "digits.onnx", "--log-file", "digits.onnx")[0] == 2
    assert run("bench", "digits.onnx", "--save-config", "digits.onnx")[0] == 2
    unchanged()


@pytest.mark.parametrize(("flag", "name"), [("-o", "own.py"), ("--plan", "own.py"), ("--log-file", "deep/own.py")])
def test_a_module_that_yields_data_is_not_written_over(run, tmp_path, unchanged, flag, name):
    (tmp_path / "deep").mkdir()
    for file in ("own.py", "deep/own.py"):
        (tmp_path / file).write_text(MODULE)
    unchanged("own.py", "deep/own.py")
    module = name.removesuffix(".py").replace("/", ".")
    assert run("digits.onnx", "--no-latency", "--calibration", f"{module}:batches", flag, name)[0] == 2
    unchanged()


def test_the_settings_that_are_read_are_not_written_over(run, tmp_path, unchanged):
    (tmp_path / "given.toml").write_text("seed = 1\n")
    unchanged("given.toml")
    assert run("digits.onnx", *BARE, "--config", "given.toml", "-o", "given.toml")[0] == 2
    unchanged()


def test_a_log_that_is_a_pipe_is_refused_and_one_that_is_full_is_given_up(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert run("digits.onnx", *BARE, "--log-file", "pipe")[0] == 2
    code, _, err = run("digits.onnx", *BARE, "--log-file", "/dev/full")
    assert code == 0
    assert err.count("the log cannot be written further") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("flag", ["-o", "--plan"])
def test_a_result_whose_name_is_not_text_is_refused_before_the_work(run, flag, tmp_path):
    name = os.fsdecode(b"cut\xff\xfe.onnx")
    code, _, err = run("digits.onnx", *BARE, flag, name, "--log-file", "run.log")
    assert code == 3
    assert "not text (UTF-8)" in err
    assert "\\udcff" in err
    assert "\\udcff" in (tmp_path / "run.log").read_text()


def test_weights_beside_the_result_whose_name_would_be_too_long_are_refused_before_the_work(run, tmp_path, monkeypatch):
    model = onnx.load("digits.onnx")
    onnx.save_model(model, "apart.onnx", save_as_external_data=True, location="w", size_threshold=0)
    monkeypatch.setattr("onnx_prune.pipeline.prune.prune", lambda *_, **__: pytest.fail("the work was begun"))
    code, _, err = run("apart.onnx", "-o", "x" * 250)
    assert code == 3
    assert "too long" in err


EVIL = "\x1b[2Jred\x1b]0;title\x07\u202e"


def renamed(place):
    model = onnx.load("digits.onnx")
    node, weight = model.graph.node[0], model.graph.initializer[0]
    if place == "input":
        model.graph.input[0].name = EVIL
    elif place == "operator":
        node.op_type = EVIL
    elif place == "missing":
        node.input[0] = EVIL
    else:
        weight.name = EVIL
    for other in model.graph.node:
        names = {"input": "x", "weight": onnx.load("digits.onnx").graph.initializer[0].name}
        other.input[:] = [EVIL if name == names.get(place) else name for name in other.input]
    onnx.save(model, "evil.onnx")


@pytest.mark.parametrize("place", ["input", "weight", "operator", "missing"])
def test_no_terminal_obeys_a_name_of_a_model(run, place):
    renamed(place)
    for arguments in (["inspect", "--members"], ["inspect"], ["prune", *BARE], ["prune", "--exclude", "nobody"]):
        code, out, err = run(arguments[0], "evil.onnx", *arguments[1:])
        assert code in (0, 2, 3)
        assert not re.search("\x1b|\x07|\u202e", out + err)


def test_what_the_system_refuses_is_3_and_said(run, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "full/x")

    monkeypatch.setattr("onnx_prune.pipeline.prune.prune", full)
    code, _, err = run("digits.onnx")
    assert code == 3
    assert "No space left on device" in err
    assert "where: full/x" in err
    assert "fix:" in err


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        ImportError("libscipy_openblas.so: failed to map segment from shared object"),
    ],
)
def test_a_thread_or_a_library_that_cannot_be_started_is_a_want_of_memory(run, monkeypatch, error):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr("onnx_prune.pipeline.prune.prune", refused)
    code, _, err = run("digits.onnx")
    assert code == 3
    assert "not enough memory" in err


def test_saved_moments_are_no_other_output(run):
    given = ["digits.onnx", "--no-latency", "--calibration", str(models.digits_data()[1])]
    assert run(*given, "--save-moments", "m.npz", "--log-file", "m.npz")[0] == 2


@pytest.mark.parametrize("flag", ["--macs", "--latency", "--criterion", "--calibration", "--evaluate", "--preset"])
def test_an_option_that_is_empty_is_wrong_usage(run, flag):
    code, _, err = run("digits.onnx", "--no-latency", flag, "")
    assert code == 2
    assert f"where: {flag}" in err


def started(redirection):
    command = f"{shlex.quote(sys.executable)} -m onnx_prune inspect digits.onnx {redirection}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_standard_output_may_be_closed_full_or_unread(run):
    assert run("--help")[0] == 0
    assert started(">&-").returncode == 0
    assert started(">/dev/null 2>&-").returncode == 0
    unread = started("| true; exit ${PIPESTATUS[0]}")
    assert (unread.returncode, unread.stderr) == (0, "")
    full = started(">/dev/full")
    assert full.returncode == 3
    assert "No space left on device" in full.stderr
