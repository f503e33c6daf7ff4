"""Table 2 from end to end, on a few small images: shards, random parts, two processes, the file of the repository."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_prune import models
from onnx_prune.tools.compare_config import read_config
from PIL import Image

TABLE = Path(__file__).parents[2] / "docs" / "tables" / "resnet50-imagenet.toml"
CLASSES, SIZE, SHARDS = 10, 64, 3


def picture(kind, rng):
    """A photograph of sorts, of any size: stripes of the class's direction and colour, and noise."""
    height, width = rng.integers(70, 110, 2)
    y, x = np.mgrid[:height, :width]
    angle = np.pi * kind / CLASSES
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) / 3 + rng.uniform(0, 6))
    colour = np.random.default_rng(kind).uniform(0.3, 1, 3)
    pixels = 128 + 80 * wave[:, :, None] * colour + rng.normal(0, 12, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=85)
    return file.getvalue()


def webdataset(folder, per_class, seed):
    """Shards of 000017.jpg and 000017.cls."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.repeat(np.arange(CLASSES), per_class)).tolist()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"part-{shard}.tar", "w") as archive:
            for number in range(shard, len(order), SHARDS):
                kind = order[number]
                for suffix, content in ((".jpg", picture(kind, rng)), (".cls", str(kind).encode())):
                    info = tarfile.TarInfo(f"{number:06d}{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return folder


def onnx_prune(*words, processes=1):
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launch, "onnx_prune", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "ONNX_PRUNE_CACHE": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Training and test shards, and a narrow ResNet-50 that was trained on them, in two processes."""
    folder = tmp_path_factory.mktemp("imagenet")
    train, test = webdataset(folder / "train", 24, 0), webdataset(folder / "val", 8, 1)
    model = folder / "resnet50.onnx"
    onnx.save(models.resnet50(CLASSES, SIZE, width=8), model)
    recipe = [
        "--epochs",
        6,
        "--batch",
        24,
        "--rate",
        0.05,
        "--labels",
        1,
        "--augment",
        "resized-crop,flip",
        "--workers",
        2,
    ]
    images = ["--resize", 72, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    trained = folder / "trained.onnx"
    onnx_prune("finetune", model, "--train", train, *recipe, *images, "-o", trained, "--quiet", processes=2)
    return trained, train, test


def test_the_table_names_the_systems_of_the_papers():
    config = read_config(TABLE, frozenset({"macs", "resize", "mean", "std", "samples"}))
    names = [method.name for method in config.methods]
    assert names == ["Channel Pruning", "ThiNet", "Soft Pruning", "DCP", "NISP", "CCP", "CCP-AC", "ours"]
    assert all(method.published is not None for method in config.methods[:-1])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_table_2_runs_on_shards(imagenet, tmp_path):
    trained, train, test = imagenet
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'epochs = 2\nbatch = 24\nrate = 0.01\nlabels = 1\naugment = ["resized-crop", "flip"]\nworkers = 2\n'
    )
    given = ["compare", trained, "--config", TABLE, "--resize", 72, "--samples", 64, "--recipe", recipe, "--no-latency"]
    data = ["--calibration", train, "--finetune", train, "--evaluate", test, "-o", tmp_path / "t", "--json"]
    rows = json.loads(onnx_prune(*given, *data))
    assert len(rows) == 8
    for row in rows:
        assert row["macs"][1] <= 0.501 * row["macs"][0], row["name"]
        assert row["tuned"][0] <= row["tuned"][1]
        assert row["before"] == rows[0]["before"]
    assert rows[0]["before"][0] > 0.5
    assert any(row["tuned"][0] < row["tuned"][1] < 1 for row in rows)
    assert len((tmp_path / "t" / "table.csv").read_text().splitlines()) == 9
