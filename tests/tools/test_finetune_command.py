"""Fine-tuning on the command line: files, streams, exit codes, and going on after a stop."""

import json
import os
import signal
import sys

import onnx
import pytest
from onnx_prune import models
from onnx_prune.runtime.torch.training.recipe import Recipe
from onnx_prune.tools import finetune_command as training
from onnx_prune.tools.cli import cli
from onnx_prune.tools.recipe_options import NAMES, make_recipe

TEST, CALIBRATION = (str(path) for path in models.digits_data())
QUICK = ["--epochs", "1", "--batch", "100"]


def test_cut_and_fine_tune_in_one_command(run, files):
    code, out, err = run(
        "digits.onnx", "--macs", "40%", "--criterion", "l1", "--reconstruct", "none", "--allocation", "uniform",
        "--finetune", CALIBRATION, "--epochs", "4", "--batch", "50", "--evaluate", TEST,
        "--no-latency", "--plan", "p.json", "--json",
    )  # fmt: skip
    result = json.loads(out)
    assert code == 0, err
    assert result["accuracy"][1] > 0.5
    assert "epoch 4" in err
    assert files() == ["digits.onnx", "digits.pruned.onnx", "p.json"]
    onnx.checker.check_model("digits.pruned.onnx", full_check=True)


def test_fine_tune_a_pruned_model(run, files):
    run("digits.onnx", "--macs", "40%", "--criterion", "l1", "--no-latency")
    lessons = ["--teacher", "digits.onnx", "--train", CALIBRATION, "--evaluate", TEST, *QUICK]
    code, out, err = run("finetune", "digits.pruned.onnx", *lessons)
    assert code == 0, err
    assert "top-1" in out
    assert "wrote digits.pruned.tuned.onnx" in out
    assert files() == ["digits.onnx", "digits.pruned.onnx", "digits.pruned.tuned.onnx"]
    shown = json.loads(run("finetune", "digits.pruned.onnx", *lessons, "--json")[1])
    assert {"epochs", "best", "agreement", "accuracy", "output"} <= set(shown)


def test_a_stopped_run_says_how_to_go_on_and_goes_on(run, files, monkeypatch):
    lessons = ["finetune", "digits.onnx", "--train", CALIBRATION, "--epochs", "2", "--batch", "100", "-o", "out.onnx"]
    tell = training._tell

    def stop(row, progress):
        tell(row, progress)
        if row.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training, "_tell", stop)
    code, _, err = run(*lessons)
    assert code == 130
    assert "--resume" in err
    assert files() == ["digits.onnx", "out.onnx.finetune"]
    monkeypatch.setattr(training, "_tell", tell)
    code, _, err = run(*lessons)
    assert code == 2
    assert "not finished" in err
    code, _, err = run(*lessons, "--resume")
    assert code == 0, err
    assert "epoch 1" not in err
    assert files() == ["digits.onnx", "out.onnx"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["finetune", "digits.onnx", "--train", "nowhere"], 3, "there is no such file or folder"),
        (["finetune", "digits.onnx", "--train", CALIBRATION, "--augment", "spin"], 2, "there is no 'spin'"),
        (["finetune", "digits.onnx", "--train", CALIBRATION, "--epochs", "0"], 2, "0 is out of range"),
        (["finetune", "digits.onnx", "--train", CALIBRATION, "-o", "digits.onnx"], 2, "the output is the input"),
        (["digits.onnx", "--epochs", "3"], 2, "--epochs is for fine-tuning"),
        (["digits.onnx", "--finetune", CALIBRATION, "--schedule", "soft", "--steps", "2"], 2, "2 steps of 'soft'"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(run, files, arguments, code, said):
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert files() == ["digits.onnx"]


def test_without_torch_the_extra_is_named(run, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("onnx_prune.runtime.torch")]:
        monkeypatch.delitem(sys.modules, name)
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "torch" else real(name, *a))
    code, _, err = run("finetune", "digits.onnx", "--train", CALIBRATION)
    assert code == 2
    assert "pip install onnx-prune[torch]" in err


def test_the_main_command_and_finetune_take_the_same_recipe(run, files):
    prune, finetune = (cli.commands[name] for name in ("prune", "finetune"))
    flags = [{o for p in command.params for o in p.opts} for command in (prune, finetune)]
    wanted = {
        "--labels",
        "--decay",
        "--momentum",
        "--milestones",
        "--schedule-rate",
        "--augment",
        "--batch",
        "--recipe",
    }
    assert wanted <= flags[0]
    recipe = {o for p in finetune.params if p.name in NAMES for o in p.opts}
    assert recipe <= flags[0] & flags[1]
    assert len(recipe) == len(NAMES)


def test_flags_come_before_the_file_and_the_file_before_the_defaults(tmp_path):
    file = tmp_path / "paper.toml"
    file.write_text("epochs = 40\nrate = 0.001\nlabels = 1\nmilestones = [20]\n", encoding="utf-8")
    given = dict.fromkeys(NAMES) | {"seed": 3, "recipe_file": file, "epochs": 2, "augment": "none", "momentum": 0.5}
    assert make_recipe(given) == Recipe(
        epochs=2, rate=0.001, labels=1.0, milestones=(20,), schedule_rate="steps", augment=(), momentum=0.5, seed=3
    )


def test_cross_entropy_by_a_file_in_one_command(run, files, tmp_path):
    file = tmp_path / "paper.toml"
    file.write_text('epochs = 1\nbatch = 100\nlabels = 1\nschedule_rate = "constant"\nmomentum = 0\n', encoding="utf-8")
    code, out, err = run(
        "digits.onnx",
        "--preset",
        "li",
        "--calibration",
        "none",
        "--finetune",
        CALIBRATION,
        "--recipe",
        str(file),
        "--no-latency",
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["macs"][1] > 0
    code, _, err = run("digits.onnx", "--recipe", str(file))
    assert code == 2
    assert "--recipe is for fine-tuning" in err


def test_a_drop_without_a_budget_is_refused_with_a_training(run):
    _, calibration = models.digits_data()
    code, _, err = run("digits.onnx", "--finetune", calibration, "--evaluate", calibration, "--max-drop", "1%")
    assert code == 2
    assert "give one such as --macs 50%" in err
