"""`onnx-prune sweep`: a table, files of the front or of all, JSON."""

import json

import pytest
from onnx_prune import models
from onnx_prune.tools.sweep_command import _budgets

TEST, CALIBRATION = (str(path) for path in models.digits_data())
GIVEN = ["sweep", "digits.onnx", "--calibration", "none", "--evaluate", TEST, "--no-latency"]


def test_the_front_is_marked_and_written(run, files):
    code, out, err = run(*GIVEN, "--macs", "90,60,0.01")
    assert code == 0
    assert "macs 90%" in out
    assert "out of reach" in out
    assert "of the MACs can go, 100 % were asked for" in out
    marked = [line.split()[1] for line in out.splitlines() if line.startswith("macs") and "*" in line]
    assert f"digits.macs{marked[0].rstrip('%')}.onnx" in files()
    assert err.count("of the MACs") >= 2


def test_all_are_written_or_none(run, files):
    run(*GIVEN, "--channels", "75,50", "--save-all", "-o", "slim.onnx")
    assert files() == ["digits.onnx", "slim.channels50.onnx", "slim.channels75.onnx"]
    result = json.loads(run(*GIVEN, "--macs", "80,60", "--no-models", "--json")[1])
    assert [point["budget"] for point in result["points"]] == [{"macs": 0.8}, {"macs": 0.6}]
    assert result["files"] == ["", ""]
    assert len(files()) == 3


@pytest.mark.parametrize(
    ("given", "budgets"),
    [
        ({"macs": "80,60%"}, [{"macs": 0.8}, {"macs": 0.6}]),
        ({"macs": "0.8,0.6"}, [{"macs": 0.8}, {"macs": 0.6}]),
        ({"macs": "2G,1G"}, [{"macs": 2_000_000_000}, {"macs": 1_000_000_000}]),
        ({"latency": "5ms,4ms"}, [{"latency": "5ms"}, {"latency": "4ms"}]),
        ({"latency": "80,60"}, [{"latency": 0.8}, {"latency": 0.6}]),
    ],
)
def test_lists_of_budgets(given, budgets):
    asked = {kind: given.get(kind) for kind in ("macs", "params", "size", "latency", "channels")}
    assert [budget.to_json() for budget in _budgets(asked)] == budgets


@pytest.mark.parametrize("arguments", [[], ["--macs", "80", "--params", "70"], ["--macs", ","], ["--macs", "a,b"]])
def test_what_is_no_list_is_wrong_usage(run, arguments):
    code, out, err = run(*GIVEN, *arguments)
    assert (code, out) == (2, "")
    assert "bug" not in err


def test_where_nothing_says_how_good_they_are_every_model_is_written_and_that_is_said(run, files):
    code, _, err = run("sweep", "digits.onnx", "--macs", "80,60", "--calibration", "none", "--no-latency")
    assert code == 0
    assert files() == ["digits.macs60.onnx", "digits.macs80.onnx", "digits.onnx"]
    assert "give --evaluate DATA" in err
