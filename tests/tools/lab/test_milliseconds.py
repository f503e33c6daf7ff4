"""The figures of docs/latency.md can be measured again: each command says its lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from onnx_prune import models
from onnx_prune.tools.lab.milliseconds import milliseconds


@pytest.fixture
def digits(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("onnx_prune.tools.lab.milliseconds._SECONDS", 0.1)
    return str(Path(models.digits_model()))


def lines(*arguments):
    result = CliRunner().invoke(milliseconds, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.splitlines()


def test_both_solvers_are_compared_on_one_table(digits):
    said = lines("solvers", digits)
    assert "ONNX Runtime" in said[0]
    assert [line.split()[1] for line in said if line.startswith("digits")] == ["70%", "50%", "35%"]
    assert all("exchange" in line and "linearised" in line for line in said if line.startswith("digits"))


def test_predictions_and_shares_say_what_was_measured(digits):
    assert "within 8 %" in lines("predictions", digits, "--vectors", "3")[1]
    assert "of 3" in lines("predictions", digits, "--vectors", "3")[1]
    assert "of the MACs" in lines("shares", digits)[1]


def test_stairs_are_drawn(digits, tmp_path):
    lines("stairs", str(tmp_path / "stairs.svg"), "--channels", "8", "--size", "8")
    assert (tmp_path / "stairs.svg").read_text().startswith("<?xml")
