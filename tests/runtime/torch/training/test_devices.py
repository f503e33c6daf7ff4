"""Fine-tuning on a GPU is the code that runs on a CPU: bfloat16, and several processes (gloo there, NCCL here)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import onnx_prune
import pytest
import torch
from onnx_prune import models
from onnx_prune.runtime.torch.training.recipe import Recipe

TEST, CALIBRATION = (str(path) for path in models.digits_data())
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "cut.onnx"
    onnx_prune.prune(models.digits_model(), budget=0.5, criterion="l1", calibration="none", measure=False).save(path)
    return path


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cut_network_learns_in_either_precision(cut, device, precision):
    recipe = Recipe(epochs=2, batch=50, rate=0.02, precision=precision)
    before = onnx_prune.evaluate(cut, TEST).top1
    tuned = onnx_prune.finetune(cut, CALIBRATION, teacher=models.digits_model(), recipe=recipe, device=device)
    after = onnx_prune.evaluate(tuned.model, TEST).top1
    assert after > max(before, 0.9)
    assert tuned.epochs[-1].loss < tuned.epochs[1].loss


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_two_processes_train_as_one_does(cut, device, tmp_path):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL wants a GPU for each process")
    scores = []
    for count in (1, 2):
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={count}",
            "-m",
            "onnx_prune",
            "finetune",
        ]
        given = [str(cut), "--teacher", str(models.digits_model()), "--train", CALIBRATION, "--evaluate", TEST]
        recipe = ["--epochs", "2", "--batch", "50", "--rate", "0.02", "--precision", "float32", "--device", device]
        command = [sys.executable, *launch, *given, *recipe, "-o", str(tmp_path / f"{count}.onnx"), "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)
        assert done.returncode == 0, done.stderr[-3000:]
        scores.append(json.loads(done.stdout)["accuracy"][1])
    assert scores[0] > 0.9
    assert abs(scores[0] - scores[1]) <= 0.01
