"""Presets, alignment and the commands that measure, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from onnx import parser
from onnx_prune import models

DATA = [str(path) for path in models.digits_data()]  # test, calibration


def test_a_preset_decides_what_is_not_said(run):
    given = ["digits.onnx", "--calibration", DATA[1], "--samples", "64", "--no-latency", "--json", "--plan", "p.json"]
    rows = {g["name"]: g for g in json.loads(run(*given, "--preset", "thinet")[1])["groups"]}
    plan = json.loads(Path("p.json").read_text())
    assert (plan["criterion"], plan["allocation"], plan["reconstruct"]) == ("thinet:centred=no", "uniform", "scalar")
    assert {n for n, g in rows.items() if g["after"] < g["before"]} == {
        f"layer{n}.conv1" for n in ("1.0", "1.1", "2.0")
    }
    run(*given, "--preset", "thinet", "--criterion", "obs:swaps=5", "--reconstruct", "full", "--exclude", "layer1.*")
    plan = json.loads(Path("p.json").read_text())
    assert (plan["criterion"], plan["allocation"], plan["reconstruct"]) == ("obs:swaps=5", "uniform", "full")
    cut = {g["name"] for g in plan["groups"] if g["removed"]}
    assert cut == {"conv1", "layer2.0.conv1", "layer2.0.conv2"}  # what is said wins, also what stays


def test_trimming_needs_no_budget_and_stops_at_one(run):
    given = ["digits.onnx", "--calibration", DATA[1], "--samples", "64", "--no-latency", "--json", "--preset", "apoz"]
    assert "not refitted: accuracy is not protected" in run(*given, "--plan", "p.json")[2]
    plan = json.loads(Path("p.json").read_text())
    assert plan["budget"] == {"macs": plan["macs"][1]}
    free, stopped, never = (
        json.loads(run(*given, *more)[1])["macs"] for more in ([], ["--macs", "95%"], ["--macs", "9%"])
    )
    assert free[1] < 0.9 * free[0]
    assert 0.93 * free[0] < stopped[1] <= 0.95 * free[0]
    assert never == free


def test_automatic_alignment_is_by_the_width_of_the_group(run):
    rows = json.loads(run("digits.onnx", "--no-latency", "--json")[1])["groups"]
    cut = [g for g in rows if g["after"] < g["before"]]
    assert {g["before"] for g in cut} == {32, 64}
    assert all(g["after"] % 4 == 0 for g in cut)


def test_sensitivity_shows_every_free_group_at_three_levels_and_without_it_where_it_may_go(run, files):
    given = ["sensitivity", "digits.onnx", "--calibration", DATA[1], "--samples", "64"]
    code, out, _ = run(*given)
    assert code == 0
    assert "KL divergence" in out
    assert out.split("most sensitive: ")[1].strip() == "conv1"
    found = json.loads(run(*given, "--json")[1])
    plain = json.loads(run(*given, "--json", "--criterion", "l1", "--reconstruct", "none")[1])
    assert [g["name"] for g in found["groups"]][:2] == ["conv1", "layer1.0.conv1"]
    may_go = {g["name"] for g in json.loads(run("inspect", "digits.onnx", "--json")[1])["groups"] if g["may_go"]}
    assert may_go >= {"layer1.0.conv1", "layer1.1.conv1"}
    for group, worse in zip(found["groups"], plain["groups"], strict=True):
        levels = (1, 2, 3, 4) if group["name"] in may_go else (1, 2, 3)
        assert list(group["divergence"]) == [str(group["units"] * n // 4) for n in levels]
        values = list(group["divergence"].values())
        assert 0 < values[0] < values[2] < worse["divergence"][str(group["units"] * 3 // 4)]
    assert "top-1, 100.00% with nothing gone" in out
    assert found["groups"][0]["top1"]["0"] == 1
    code, out, _ = run(*given, "--levels", "10%,90%")
    assert "10% gone" in out
    assert "90% gone" in out
    assert run(*given, "--levels", "10%,x")[0] == run(*given, "--levels", "110%")[0] == 2
    assert files() == ["digits.onnx"]


def test_bench_compares_latencies(run):
    run("digits.onnx", "--no-latency")
    measured = json.loads(run("bench", "digits.onnx", "digits.pruned.onnx", "--seconds", "0.2", "--json")[1])["models"]
    assert [row["model"] for row in measured] == ["digits.onnx", "digits.pruned.onnx"]
    assert all(0 < row["latency"] < 1000 for row in measured)
    assert "100.0%" in run("bench", "digits.onnx", "--seconds", "0.1", "--threads", "1")[1]
    assert run("bench", "digits.onnx", "--seconds", "0.1", "--batch", "3")[0] == 0


def test_episodes_are_those_of_the_search_and_of_nothing_else(run):
    given = ["digits.onnx", "--calibration", DATA[1], "--samples", "64", "--no-latency", "--quiet", "--plan", "p.json"]
    asked = ["--allocation", "amc:warmup=2,images=32", "--episodes", "3", "--macs", "60%"]
    assert run(*given, *asked)[0] == 0
    plan = json.loads(Path("p.json").read_text())
    assert plan["allocation"] == "amc:episodes=3,warmup=2,images=32"
    assert plan["macs"][1] <= 0.6 * plan["macs"][0]
    code, _, said = run(*given, "--episodes", "3")
    assert code == 2
    assert "only a search has episodes" in said
    assert run(*given, "--preset", "thinet", "--episodes", "3")[0] == 2


def test_bench_per_node_says_where_the_time_goes_and_how_good_the_prediction_is(run):
    found = json.loads(run("bench", "digits.onnx", "--per-node", "--batch", "2", "--json")[1])
    assert found["batch"] == 2
    assert found["inputs"]["input"][0] == 2
    assert sum(node["ms"] for node in found["nodes"]) + found["rest"] == pytest.approx(found["whole"])
    assert any("Conv" in node["op"] and node["reads"] and node["writes"] for node in found["nodes"])
    assert len(found["checks"]) == 6
    assert all(0 < share < 1.5 for pair in found["checks"] for share in pair)
    code, out, _ = run("bench", "digits.onnx", "--per-node")
    assert code == 0
    assert "the whole network" in out
    assert "6 random widths is predicted" in out
    assert f"input {[1, *found['inputs']['input'][1:]]}" in " ".join(out.split())
    code, _, said = run("bench", "digits.onnx", "digits.onnx", "--per-node")
    assert code == 2
    assert "--per-node looks at one model" in said


def test_latency_is_measured_at_the_batch_that_is_asked_for(run):
    report = json.loads(run("digits.onnx", "--criterion", "l1", "--latency-batch", "4", "--json")[1])
    assert "batch 4" in report["measured_on"]
    fixed = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }'
    )
    onnx.save(fixed, "fixed.onnx")
    code, _, said = run("fixed.onnx", "--latency-batch", "4")
    assert code == 2
    assert "does not leave open how many samples it takes" in said


def test_that_operators_on_integers_are_not_refitted_is_said_and_how_near_the_result_is(run):
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 6] x) => (float[N, 4] y) {
      a = MatMul (x, w) r = Relu (a)
      q, s, z = DynamicQuantizeLinear (r) p = MatMulInteger (q, v, z) f = Cast <to = 1> (p) y = Mul (f, s)
    }
    """
    model, rng = parser.parse_model(text), np.random.default_rng(0)
    weights = {"w": rng.normal(size=(6, 24)).astype(np.float32), "v": rng.integers(-99, 99, (24, 4)).astype(np.int8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in weights.items())
    onnx.save(model, "integers.onnx")
    np.save("data.npy", rng.normal(size=(64, 6)).astype(np.float32))
    code, said, warned = run("integers.onnx", "--calibration", "data.npy", "--no-latency")
    assert code == 0
    assert "nothing was refitted: integer weights (1 layer)" in said
    assert "relative distance from the original's outputs" in said or "same top class" in said
    assert "cut the model before it is quantised" in warned
