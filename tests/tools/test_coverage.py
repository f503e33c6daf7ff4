"""The coverage page says what was measured, and one model goes through as in the full run."""

import dataclasses
from pathlib import Path

import pytest
from onnx_prune.tools.coverage import examine, list_models, model_name
from onnx_prune.tools.coverage_page import Row, render

GOOD = Row(
    name="net",
    source="zoo",
    nodes=10,
    seconds=0.25,
    convolutional=True,
    can_go=0.9,
    kept=0.4999,
    proof=3e-7,
    free=4,
    groups=6,
    pinned={"graph input": 1, "graph output": 1},
)


def test_the_page_counts_networks_that_reach_the_half():
    short = dataclasses.replace(GOOD, name="short", kept=0.8, proof=5e-7)
    page = render([GOOD, short], 3)
    assert "2 of 3 models were run; 2 of them went through." in page
    assert "The worst proof error is 5.0e-07 (short)." in page
    assert "1 of 2 convolutional networks (50%)" in page
    assert "| short | 80.0% | graph input (1); graph output (1) |" in page


def test_a_model_that_failed_is_in_the_table_and_in_no_other_number():
    page = render([GOOD, Row("broken", "real", "exit code 1: a | b")], 2)
    assert "1 of them went through, 1 did not" in page
    assert "exit code 1: a / b |" in page
    assert "1 of 1 convolutional networks (100%)" in page


@pytest.mark.parametrize("file", ["light_squeezenet.onnx"])
def test_a_light_model_is_pruned_to_the_half(file, tmp_path):
    path = next(p for p in list_models(tmp_path) if p.name == file)
    row = examine(path, tmp_path)
    assert (row.status, row.convolutional) == ("ok", True)
    assert row.kept == pytest.approx(0.5, abs=0.01)
    assert row.proof is not None
    assert row.proof < 1e-5


def test_names_lose_their_endings():
    assert model_name(Path("tv-resnet18-ts.onnx.gz")) == "tv-resnet18"
    assert model_name(Path("tv-resnet18-dyn.onnx.gz")) == "tv-resnet18-dyn"
