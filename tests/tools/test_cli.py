"""The command line is a contract: commands, exit codes, what goes to which stream, and which files appear."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_prune.pipeline.prune
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.cut import Cut

DATA = [str(path) for path in models.digits_data()]  # test, calibration


def assert_error(text, what):
    """what, where, fix: a line each."""
    first, *others = text.splitlines()
    assert first.startswith("onnx-prune: ")
    assert [line[:9] for line in others] in (["  where: ", "  fix:   "], ["  where: "], ["  fix:   "])
    assert what in text


# --- what the commands do ---------------------------------------------------------------------------------------------


def test_a_bare_model_is_pruned_to_half_of_its_macs(run, files):
    code, out, err = run("digits.onnx", "--no-latency")
    assert code == 0
    assert files() == ["digits.onnx", "digits.pruned.onnx"]
    for words in (
        "layer1.0.conv1",
        "MACs",
        "parameters",
        "file",
        "proof error",
        "wrote digits.pruned.onnx",
        "pinned",
        "decided on",
    ):
        assert words in out
    assert "synthetic images" in err  # there is no calibration data
    assert "--calibration" in err
    assert "accuracy is not protected" in run("digits.onnx", "--no-latency", "--calibration", "none")[2]
    onnx.checker.check_model("digits.pruned.onnx", full_check=True)


def test_latency_is_shown_before_and_after(run):
    assert "latency" in run("digits.onnx")[1]
    assert "latency" not in run("digits.onnx", "--no-latency")[1]


@pytest.mark.parametrize("budget", [["--macs", "60%"], ["--params", "50k"], ["--size", "200kB"], ["--channels", "50%"]])
def test_each_budget(run, budget):
    code, out, _ = run("prune", "digits.onnx", *budget, "--no-latency", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["macs"][1] < result["macs"][0]


def test_shares_by_pattern(run):
    out = run("digits.onnx", "--channels", "layer1.*=25%", "--channels", "layer2.*=75%", "--no-latency", "--json")[1]
    cut = {g["name"]: g["after"] / g["before"] for g in json.loads(out)["groups"] if g["after"] < g["before"]}
    assert cut == {"layer1.0.conv1": 0.25, "layer1.1.conv1": 0.25, "layer2.0.conv1": 0.75, "layer2.0.conv2": 0.75}


def test_what_is_given_is_used(run):
    settings = ["--criterion", "l1", "--allocation", "global", "--align", "4", "--exclude", "conv1", "--seed", "7"]
    code, out, _ = run("digits.onnx", *settings, "--plan", "p.json", "--json", "--no-latency", "-o", "out.onnx")
    plan, rows = json.loads(Path("p.json").read_text()), {g["name"]: g for g in json.loads(out)["groups"]}
    assert code == 0
    assert (plan["criterion"], plan["allocation"], plan["seed"]) == ("l1", "global", 7)
    assert rows["conv1"]["after"] == 32
    assert all(g["after"] % 4 == 0 for g in rows.values() if g["pinned"] is None)


def test_json_is_all_there_is_on_standard_output(run):
    code, out, err = run("digits.onnx", "--json", "--plan", "p.json", "--calibration", "none")
    result = json.loads(out)
    assert code == 0
    assert {"model", "groups", "macs", "params", "size", "latency", "proof", "seconds", "output", "plan"} <= set(result)
    assert (result["output"], result["plan"]) == ("digits.pruned.onnx", "p.json")
    assert "accuracy is not protected" in err
    for command in (["inspect", "digits.onnx"], ["apply", "digits.onnx", "p.json"]):
        json.loads(run(*command, "--json")[1])


def test_inspect_shows_groups_members_and_reasons(run, files):
    code, out, _ = run("inspect", "digits.onnx")
    assert code == 0
    assert "layer2.0.conv1" in out
    assert "graph output 'logits'" in out
    assert "layer2.0.conv1.weight" not in out
    assert "layer2.0.conv1.weight axis 0: produced" in run("inspect", "digits.onnx", "--members")[1]
    members = {
        m["constant"]: m for g in json.loads(run("inspect", "digits.onnx", "--json")[1])["groups"] for m in g["members"]
    }
    assert members["layer2.0.conv1.weight"]["role"] in ("produced", "consumed")
    assert files() == ["digits.onnx"]


def test_apply_redoes_a_plan(run):
    run("digits.onnx", "--plan", "p.json", "-o", "first.onnx", "--no-latency", "--calibration", "none")
    code, out, err = run("apply", "digits.onnx", "p.json", "-o", "second.onnx", "--no-latency")
    assert code == 0
    assert "wrote second.onnx" in out
    assert "accuracy is not protected" in err
    assert onnx.load("first.onnx") == onnx.load("second.onnx")


def test_the_demo_prints_accuracy_before_and_after(run, files):
    code, out, _ = run("demo", "--no-latency")
    assert code == 0
    assert "digits.pruned.onnx" in files()
    (shown,) = re.findall(r"top-1 .* ([\d.]+)% .* ([\d.]+)%", out)
    before, after = map(float, shown)
    assert before > 98
    assert after > 95


def test_an_evaluation_is_shown(run):
    given = ["digits.onnx", "--macs", "80%", "--align", "1", "--criterion", "l1", "--no-latency", "--json"]
    out = run(*given, "--evaluate", DATA[0])[1]
    before, after = json.loads(out)["accuracy"]
    assert 0 < after < before


def test_evaluate_measures_a_model_or_its_distance(run):
    code, out, _ = run("evaluate", "digits.onnx", DATA[0], "--json")
    assert code == 0
    assert json.loads(out)["top1"] > 0.98
    assert run("evaluate", "digits.onnx", DATA[0], "--reference", "digits.onnx")[0] == 0


def test_calibrated_runs_protect_accuracy(run):
    code, out, err = run(
        "digits.onnx", "--calibration", DATA[1], "--samples", "64", "--evaluate", DATA[0], "--no-latency", "--json"
    )
    before, after = json.loads(out)["accuracy"]
    assert code == 0
    assert before - after < 0.1
    assert "not protected" not in err


# --- how they end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["digits.onnx", "--macs", "many"], 2, "'many' is not a budget"),
        (["digits.onnx", "--macs", "50%", "--params", "50%"], 2, "more than one budget"),
        (["digits.onnx", "--criterion", "best"], 2, "best"),
        (["digits.onnx", "--allocation", "fair"], 2, "fair"),
        (["digits.onnx", "--align", "0"], 2, "aligned"),
        (["digits.onnx", "--preset", "best"], 2, "best"),
        (["digits.onnx", "--preset", "apoz", "--calibration", "none"], 2, "needs statistics of activations"),
        (["digits.onnx", "--replace-head", "gap"], 2, "no fully connected layers"),
        (["sensitivity", "missing.onnx", "--calibration", DATA[1]], 3, "does not exist"),
        (["bench", "missing.onnx"], 3, "cannot be read"),
        (["digits.onnx", "--exclude", "("], 2, "not a valid regular expression"),
        (["digits.onnx", "--exclude", "nobody"], 2, "no group's name matches"),
        (["digits.onnx", "--size-of", "height"], 2, "--size-of wants NAME=N"),
        (["digits.onnx", "-o", "digits.onnx"], 2, "the output is the input"),
        (["digits.onnx", "-o", "./nowhere/../digits.onnx"], 2, "the output is the input"),
        (["digits.onnx", "--plan", "digits.onnx"], 2, "the output is the input"),
        (["digits.onnx", "-o", "a", "--plan", "a"], 2, "named twice"),
        (["digits.onnx", "-o", "nowhere/out.onnx"], 2, "output folder does not exist"),
        (["digits.onnx", "--plan", "nowhere/p.json"], 2, "output folder does not exist"),
        (["digits.onnx", "-o", "."], 2, "the output is a folder"),
        (["digits.onnx", "--max-drop", "1%"], 2, "needs data to evaluate on"),
        (["digits.onnx", "--evaluate", DATA[0], "--metric", "best"], 2, "there is no metric 'best'"),
        (["demo", "-o", "nowhere/out.onnx"], 2, "output folder does not exist"),
        (["missing.onnx"], 3, "does not exist"),
        (["nowhere/missing.onnx"], 3, "does not exist"),
        (["junk.onnx"], 3, "cannot be read as ONNX"),
        (["inspect", "junk.onnx"], 3, "cannot be read as ONNX"),
        (["apply", "digits.onnx", "missing.json"], 3, "the plan cannot be read"),
        (["apply", "digits.onnx", "junk.onnx"], 3, "the plan is not valid JSON"),
        (["digits.onnx", "--calibration", "missing.npz"], 3, "missing.npz"),
        (["digits.onnx", "--macs", "0.01%"], 4, "the budget cannot be met"),
        (["digits.onnx", "--align", "64", "--macs", "50%", "--keep-blocks"], 4, "the budget cannot be met"),
    ],
)
def test_an_error_has_its_code_and_says_what_where_and_what_to_do(run, files, tmp_path, arguments, code, what):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    found, out, err = run(*arguments)
    assert found == code
    assert out == ""
    assert_error(err, what)
    assert files() == ["digits.onnx", "junk.onnx"]


@pytest.mark.parametrize("named", [[], ["--plan", "kept.json"]])
def test_a_budget_that_loses_too_much_writes_no_model_and_keeps_its_plan(run, files, named):
    guard = ["--macs", "50%", "--calibration", "none", "--evaluate", DATA[0], "--max-drop", "1%", "--no-latency"]
    code, out, err = run("digits.onnx", *guard, *named)
    plan = "kept.json" if named else "digits.pruned.plan.json"
    assert (code, out) == (6, "")
    assert "top-1 fell from 99.44% to" in err
    assert plan in err
    assert files() == ["digits.onnx", plan]
    assert run("apply", "digits.onnx", plan, "--no-latency")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [["digits.onnx", "--no-such-flag"], ["digits.onnx", "--align", "x"], ["apply"], ["bench"], ["sensitivity", "m"]],
)
def test_wrong_usage_is_2(run, files, arguments):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: onnx-prune" in err
    assert files() == ["digits.onnx"]


def test_a_failed_proof_is_5_and_leaves_nothing(run, files, monkeypatch):
    def shifted(cut, constant, values):
        for axis, labels in enumerate(constant.labels):
            if cut.touched(labels):
                values = np.compress(np.roll(cut.kept(labels), 1), values, axis)
        return values

    monkeypatch.setattr(Cut, "compress", shifted)
    code, out, err = run("digits.onnx", "--plan", "p.json", "--json")
    assert (code, out) == (5, "")
    assert_error(err, "differs from the original")
    assert files() == ["digits.onnx"]


def test_a_bug_of_ours_is_1_and_says_how_to_report_it(run, files, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("our own")

    monkeypatch.setattr(onnx_prune.pipeline.prune, "prune", broken)
    code, out, err = run("digits.onnx")
    assert (code, out) == (1, "")
    assert "a bug of ours: ZeroDivisionError: our own" in err
    assert "Traceback" not in err
    assert files() == ["digits.onnx"]
    monkeypatch.setenv("ONNX_PRUNE_DEBUG", "1")
    assert "Traceback" in run("digits.onnx")[2]


def test_the_input_is_never_touched(run, tmp_path):
    before = (tmp_path / "digits.onnx").read_bytes()
    run("digits.onnx", "--plan", "p.json")
    run("apply", "digits.onnx", "p.json", "-o", "p.json")
    run("apply", "digits.onnx", "p.json", "-o", "digits.onnx")
    assert (tmp_path / "digits.onnx").read_bytes() == before
    assert json.loads((tmp_path / "p.json").read_text())["format"] == "onnx-prune plan"


# --- how they start ---------------------------------------------------------------------------------------------------

HEAVY = {"numpy", "scipy", "onnx", "onnx_graphsurgeon", "onnxruntime", "torch", "rich", "PIL"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["prune", "--help"], ["inspect", "-h"]])
def test_help_loads_nothing_that_is_slow(arguments):
    script = (
        "import sys; from onnx_prune.tools.cli import main; sys.argv[:] = ['onnx-prune', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(*{name.split('.')[0] for name in sys.modules}, sep=',')"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split(","))


def test_help_takes_less_than_700_ms_of_the_processor():
    times = []
    for _ in range(5):
        start = sum(os.times()[2:4])
        subprocess.run([sys.executable, "-m", "onnx_prune.tools.cli", "--help"], capture_output=True, check=True)
        times.append(sum(os.times()[2:4]) - start)
    assert 0 < min(times) < 0.7


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    assert {"prune", "inspect", "apply", "evaluate", "demo", "sensitivity", "bench"} <= set(out.split())
    assert run()[2].startswith("Usage: onnx-prune")


def test_the_version_is_the_packages(run):
    from importlib.metadata import version

    assert run("--version")[1].split()[-1] == version("onnx-prune")


def test_data_to_evaluate_on_are_looked_at_before_the_work(run, tmp_path):
    code, out, err = run("digits.onnx", "--evaluate", "none.npz", "-o", "x.onnx")
    assert code == 3
    assert "there is no such file or folder" in err
    assert out == ""
    assert not (tmp_path / "x.onnx").exists()


# --- what is typed by mistake -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "meant"), [("inspekt", "inspect"), ("evalute", "evaluate"), ("aply", "apply")])
def test_a_mistyped_command_is_answered_with_the_right_one(run, word, meant):
    code, out, err = run(word, "digits.onnx")
    assert (code, out) == (2, "")
    assert f"did you mean '{meant}'?" in err


def test_a_file_that_looks_like_a_command_is_a_model(run):
    shutil.copy("digits.onnx", "inspekt")
    assert run("inspekt", "--no-latency", "--calibration", "none")[0] == 0


def test_help_is_a_word_too(run):
    code, out, _ = run("help")
    assert code == 0
    assert "Usage" in out
    assert "--members" in run("help", "inspect")[1]


def test_the_list_of_commands_cuts_no_sentence(run):
    out = run("--help")[1]
    assert "..." not in out.split("Commands:")[1]


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--samples", "0"], ["--samples", "-3"]])
def test_numbers_out_of_range_are_wrong_usage(run, arguments):
    code, _, err = run("digits.onnx", *arguments)
    assert code == 2
    assert arguments[0] in err


def test_a_folder_is_no_model(run):
    code, _, err = run(".")
    assert code in (2, 3)
    assert "folder" in err


def test_tables_in_a_pipe_are_a_hundred_columns_wide_at_most(run):
    assert max(map(len, run("inspect", "digits.onnx", "--members")[1].splitlines())) <= 100


# --- what is read is never written over -------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-o", "--plan", "--save-moments"])
@pytest.mark.parametrize("kind", ["model", "hard link", "link", "weights", "calibration", "evaluation", "in a folder"])
def test_no_output_replaces_what_the_run_reads(run, tmp_path, flag, kind):
    model = onnx.load("digits.onnx")
    onnx.save(model, "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0)
    (tmp_path / "images").mkdir()
    for name in ("data.npz", "images/00.png"):
        (tmp_path / name).write_bytes(Path(DATA[1]).read_bytes())
    (tmp_path / "hard.onnx").hardlink_to(tmp_path / "apart.onnx")
    (tmp_path / "soft.onnx").symlink_to(tmp_path / "apart.onnx")
    target = {
        "model": "apart.onnx",
        "hard link": "hard.onnx",
        "link": "soft.onnx",
        "weights": "apart.bin",
        "calibration": "data.npz",
        "evaluation": "data.npz",
        "in a folder": "images/00.png",
    }[kind]
    data = {"evaluation": ["--evaluate", "data.npz"], "in a folder": ["--calibration", "images"]}
    before = (tmp_path / target).read_bytes()
    given = data.get(kind, ["--calibration", "data.npz"])
    code, out, err = run("apart.onnx", *given, flag, target, *([] if flag == "-o" else ["-o", "o.onnx"]))
    assert (code, out) == (2, "")
    assert_error(err, "the output is the input")
    assert (tmp_path / target).read_bytes() == before


def test_a_pipe_as_the_output_is_refused_before_the_work(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = run("digits.onnx", "-o", "pipe")
    assert code == 2
    assert_error(err, "a device or a pipe")
    assert run("digits.onnx", "-o", "x" * 300)[0] == 3
    assert run("x" * 300)[0] == 3
    assert run("pipe")[0] == 3


# --- how they are stopped ---------------------------------------------------------------------------------------------

_STOPPED = """
import os, signal, sys, onnx_prune.pipeline.prune, onnx_prune.tools.cli
number = int(sys.argv.pop())
from onnx_prune.passes.graph.scratch import scratch_folder
def prune(*_, **__):
    with scratch_folder() as folder:
        (folder / "large").write_bytes(b"much")
        os.kill(os.getpid(), number)
        while True:
            signal.pause()
onnx_prune.pipeline.prune.prune = prune
onnx_prune.tools.cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(15, 143), (2, 130)])
def test_a_stopped_run_leaves_no_temporary_file(run, tmp_path, number, code):
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED, "digits.onnx", str(number)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
        check=False,
    )
    assert done.returncode == code
    assert list((tmp_path / "temporary").iterdir()) == []
    assert len(done.stderr.split("\n\n")[-1].strip().splitlines()) <= 1


def test_too_little_memory_is_no_bug(run, monkeypatch):
    def hungry(*_, **__):
        raise MemoryError

    monkeypatch.setattr(onnx_prune.pipeline.prune, "prune", hungry)
    code, _, err = run("digits.onnx")
    assert code == 3
    assert_error(err, "not enough memory")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("onnx-prune sens", "plain,sensitivity"),
        ("onnx-prune prune --effort ", "plain,thorough"),
        ("onnx-prune digits.onnx --cal", "plain,--calibration"),
        ("onnx-prune digi", "file,digi"),
        ("onnx-prune inspekt --js", "plain,--json"),
    ],
)
def test_shells_complete_commands_flags_and_models(words, expected):
    number = len(words.split(" ")) - 1
    environment = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(number),
        "_ONNX_PRUNE_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from onnx_prune.tools.cli import main; main()"],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert expected in done.stdout.splitlines()
    assert done.stderr == ""


LOST = """
import os, signal, sys, time, onnx_prune.pipeline.prune, onnx_prune.tools.cli
class Closed:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(5)
def prune(*_, **__):
    Closed()
    time.sleep(60)
onnx_prune.pipeline.prune.prune = prune
sys.argv = ["onnx-prune", "digits.onnx"]
onnx_prune.tools.cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="there are no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_python_ignores_while_it_closes_something_is_not_lost(run, name, code):
    assert run("--help")[0] == 0  # the folder has the model
    command = [sys.executable, "-c", LOST.format(name=name)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
