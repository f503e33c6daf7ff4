"""Options from a file, the file of a run's options, and what plan and model say of how they were made."""

import json
from pathlib import Path

import onnx
import pytest
from onnx_prune import Plan
from onnx_prune.passes.toml import read_toml

CUT = ["digits.onnx", "--calibration", "none", "--no-latency"]


def test_a_saved_configuration_makes_the_same_model(run):
    given = ["--macs", "60%", "--seed", "3", "--criterion", "random", "-o", "first.onnx"]
    assert run(*CUT, *given, "--save-config", "run.toml")[0] == 0
    saved = read_toml(Path("run.toml"))
    assert saved["macs"] == "60%"
    assert saved["seed"] == 3
    assert saved["no-latency"] is True
    assert run("--config", "run.toml", "-o", "second.onnx")[0] == 0
    assert Path("first.onnx").read_bytes() == Path("second.onnx").read_bytes()


def test_the_command_line_wins_and_lists_are_lists(run):
    Path("run.toml").write_text('channels = ["layer1.*=25%", "layer2.*=75%"]\nalign = 1\nno_latency = true\n')
    out = json.loads(run("digits.onnx", "--config", "run.toml", "--calibration", "none", "--json")[1])
    kept = {g["name"]: g["after"] / g["before"] for g in out["groups"]}
    assert (kept["layer1.0.conv1"], kept["layer2.0.conv1"]) == (0.25, 0.75)
    Path("run.toml").write_text('macs = "20%"\n')
    out = json.loads(run(*CUT, "--config", "run.toml", "--macs", "80%", "--json")[1])
    assert out["macs"][1] > 0.7 * out["macs"][0]


@pytest.mark.parametrize("text", ['mcas = "50%"', "[macs]\nx = 1", "not toml", 'config = "a.toml"'])
def test_what_no_option_is_called_is_refused(run, text):
    Path("run.toml").write_text(text)
    code, out, err = run(*CUT, "--config", "run.toml")
    assert (code, out) in ((2, ""), (3, ""))
    assert "run.toml" in err
    assert "bug" not in err
    assert run(*CUT, "--config", "nowhere.toml")[0] in (2, 3)


def test_plan_and_model_say_how_they_were_made(run):
    original = onnx.load("digits.onnx")
    kept = original.metadata_props.add()
    kept.key, kept.value = "author", "somebody"
    onnx.save(original, "digits.onnx")
    run(*CUT, "--macs", "60%", "--plan", "p.json", "-o", "out.onnx")
    plan = Plan.load("p.json")
    assert plan.settings == {"calibration": "none", "macs": "60%", "no-latency": True}
    said = {entry.key: entry.value for entry in onnx.load("out.onnx").metadata_props}
    assert said["author"] == "somebody"
    assert said["onnx_prune.budget"] == '{"macs": 0.6}'
    assert said["onnx_prune.plan_sha256"] == plan.digest
    run("apply", "digits.onnx", "p.json", "-o", "again.onnx", "--no-latency")
    assert Path("out.onnx").read_bytes() == Path("again.onnx").read_bytes()


def test_the_digest_is_of_what_is_cut_alone(run):
    run(*CUT, "--macs", "60%", "--plan", "a.json", "-o", "a.onnx")
    run(*CUT, "--macs", "60.01%", "--seed", "2", "--plan", "b.json", "-o", "b.onnx")
    run(*CUT, "--macs", "40%", "--plan", "c.json", "-o", "c.onnx")
    a, b, c = (Plan.load(f"{name}.json").digest for name in "abc")
    assert a == b != c


def test_an_uncut_model_says_nothing_of_it(run):
    run(*CUT, "--macs", "2G", "-o", "out.onnx")
    assert not [entry for entry in onnx.load("out.onnx").metadata_props if entry.key.startswith("onnx_prune")]
