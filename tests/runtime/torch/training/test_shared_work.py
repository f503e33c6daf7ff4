"""Processes of torchrun measure together what one measures alone, and a command that they run writes one result."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_prune import models

HERE = Path(__file__).parent
TEST, CALIBRATION = (str(path) for path in models.digits_data())
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "ONNX_PRUNE_CACHE": ""}


def torchrun(*words, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    subprocess.run([sys.executable, HERE / "shared_work.py", folder], env=ENVIRONMENT, check=True, timeout=200)
    torchrun(str(HERE / "shared_work.py"), str(folder))
    return [pickle.loads((folder / f"{name}.pickle").read_bytes()) for name in ("1.0", "2.0", "2.1")]


def test_moments_are_those_of_one_process(measured):
    alone, first, second = (one["moments"] for one in measured)
    assert alone.keys() == first.keys()
    for name in alone:
        for (rows, mean, A), (rows2, mean2, A2), (_, mean3, A3) in zip(
            alone[name], first[name], second[name], strict=True
        ):
            assert rows == rows2
            assert np.allclose(mean, mean2, rtol=1e-5, atol=1e-7)
            assert np.allclose(A, A2, rtol=1e-5, atol=1e-6)
            assert np.array_equal(mean2, mean3)
            assert np.array_equal(A2, A3)


def test_sensitivities_and_accuracy_are_those_of_one_process(measured):
    alone, first, second = measured
    assert alone["accuracy"] == first["accuracy"] == second["accuracy"]
    assert first["sensitivity"] == second["sensitivity"]
    assert first["sensitivity"].keys() == alone["sensitivity"].keys()
    for name, curve in alone["sensitivity"].items():
        assert first["sensitivity"][name] == pytest.approx(curve, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("network", ["chain", "vgg", "densenet"])
def test_what_is_chosen_by_training_is_what_the_first_process_has_found(measured, network):
    """Each draws other numbers, as GPUs that add up in another order would; all go on with one network."""
    alone, first, second = (one["trained"][network] for one in measured)
    assert alone[0] == first[0] == second[0]
    assert any(alone[0].values())
    for values in zip(alone[1], first[1], second[1], strict=True):
        np.testing.assert_allclose(values[1], values[0], rtol=1e-4, atol=1e-6)
        assert np.array_equal(values[1], values[2])


@pytest.mark.slow
def test_one_command_prunes_and_trains_in_several_processes(tmp_path):
    given = [str(models.digits_model()), "--calibration", CALIBRATION, "--samples", "288", "--macs", "50%"]
    more = ["--finetune", CALIBRATION, "--epochs", "2", "--batch", "100", "--precision", "float32", "--no-latency"]
    done = torchrun("-m", "onnx_prune", *given, *more, "-o", str(tmp_path / "out.onnx"), "--json")
    result = json.loads(done.stdout)
    assert result["macs"][1] <= 0.5 * result["macs"][0]
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


@pytest.mark.slow
def test_a_comparison_makes_one_row_after_another_together(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(
        '[recipe]\nepochs = 1\nbatch = 100\nprecision = "float32"\n[[method]]\nname = "l1"\n[[method]]\nname = "ours"\n'
    )
    given = [
        str(models.digits_model()),
        "--config",
        str(config),
        "--calibration",
        CALIBRATION,
        "--finetune",
        CALIBRATION,
    ]
    words = ["-m", "onnx_prune", "compare", *given, "--evaluate", TEST, "--no-latency", "-o", str(tmp_path / "t")]
    said = torchrun(*words, "--json").stdout
    rows = json.loads(said)
    assert [row["name"] for row in rows] == ["l1", "ours"]
    assert rows == json.loads((tmp_path / "t" / "table.json").read_text())
    assert all(row["tuned"][0] > 0.9 for row in rows)
    assert json.loads(torchrun(*words, "--json").stdout) == rows
