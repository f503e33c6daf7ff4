"""Images in tar files: where each lies, what its class is, and that any process may read it."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.runtime.data.inputs import ModelInput
from onnx_prune.runtime.data.open import open_data, open_samples
from onnx_prune.runtime.data.preprocess import Preprocessing, random_part
from PIL import Image

INPUTS = (ModelInput("x", np.dtype(np.float32), (None, 3, 4, 6)),)
BYTES = Preprocessing(scale=1)


def picture(value, size=(4, 6)):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, "png")
    return file.getvalue()


def tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def values(data):
    """(pixel, class) of each sample."""
    found = []
    for batch in data:
        labels = [None] * batch.size if batch.labels is None else batch.labels.tolist()
        found += zip(batch.feeds["x"][:, 0, 0, 0].astype(int).tolist(), labels, strict=True)
    return found


def test_webdatasets_shards_say_their_classes(tmp_path):
    for shard in range(3):
        files = {}
        for number in range(2):
            key = f"{shard}{number}"
            files |= {f"{key}.png": picture(shard * 10 + number), f"{key}.cls": str(7 - shard).encode()}
        tar(tmp_path / "train" / f"part-{shard}.tar", files)
    data = open_data(tmp_path / "train", INPUTS, BYTES)
    assert data.labelled
    assert values(data) == [(0, 7), (1, 7), (10, 6), (11, 6), (20, 5), (21, 5)]


def test_class_folders_run_through_all_shards(tmp_path):
    tar(tmp_path / "t" / "a.tar", {"dog/1.png": picture(1), "cat/2.png": picture(2)})
    tar(tmp_path / "t" / "b.tar", {"cat/3.png": picture(3), "./dog/4.png": picture(4)})
    (tmp_path / "t" / "sizes.json").write_text("{}")
    data = open_data(tmp_path / "t", INPUTS, BYTES)
    assert sorted(values(data)) == [(1, 1), (2, 0), (3, 0), (4, 1)]
    assert data.classes == ("cat", "dog")


def test_one_tar_a_class_is_how_imagenet_comes(tmp_path):
    for number, name in enumerate(["n02", "n01", "n03"]):
        tar(tmp_path / f"{name}.tar", {f"{name}_{k}.png": picture(10 * number + k) for k in range(2)})
    data = open_data(tmp_path, INPUTS, BYTES)
    assert data.classes == ("n01", "n02", "n03")
    assert values(data) == [(10, 0), (11, 0), (0, 1), (1, 1), (20, 2), (21, 2)]


def test_one_flat_tar_has_no_classes(tmp_path):
    data = open_data(tar(tmp_path / "all.tar", {"a.png": picture(3), "b.png": picture(4)}), INPUTS, BYTES)
    assert not data.labelled
    assert values(data) == [(3, None), (4, None)]


def test_what_is_wrong_with_a_shard_is_said(tmp_path):
    gap = tar(tmp_path / "gap.tar", {"a.png": picture(1), "a.cls": b"0", "b.png": picture(2)})
    with pytest.raises(ReadError, match="has no class"):
        open_data(gap, INPUTS)
    with pytest.raises(ReadError, match="not a whole number"):
        open_data(tar(tmp_path / "word.tar", {"a.png": picture(1), "a.cls": b"dog"}), INPUTS)
    (tmp_path / "text.tar").write_text("no tar")
    with pytest.raises(ReadError, match="not a tar archive"):
        open_data(tmp_path / "text.tar", INPUTS)
    tar(tmp_path / "two" / "a.tar", {"c/a.png": picture(1)})
    tar(tmp_path / "two" / "b.tar", {"c/a.png": picture(1)})
    with pytest.raises(ReadError, match="two files have one name"):
        open_data(tmp_path / "two", INPUTS)
    with pytest.raises(UsageError, match="cannot be read"):
        open_data(tar(tmp_path / "a.tgz", {}), INPUTS)


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_images_are_read_in_any_process(tmp_path, kind):
    files = {f"{c}/{n}.png": picture(10 * c + n, (40, 40)) for c in range(2) for n in range(4)}
    path = tmp_path / f"data.{kind}"
    if kind == "tar":
        tar(path, files)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    samples, _ = open_samples(path, INPUTS)
    assert samples.cropped is not None
    expected = samples.read(np.arange(8)).feeds["x"]
    again = pickle.loads(pickle.dumps(samples.cropped))
    assert np.array_equal(again(np.arange(8)).feeds["x"], expected)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(samples.cropped, [np.arange(4), np.arange(4, 8)])
    assert np.array_equal(np.concatenate([p.feeds["x"] for p in parts]), expected)


def test_random_parts_have_the_areas_and_proportions_that_were_asked_for():
    rng = np.random.default_rng(0)
    boxes = np.array([random_part(300, 400, rng) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 400
    assert bottom.max() <= 300
    area, ratio = (right - left) * (bottom - top) / (300 * 400), (right - left) / (bottom - top)
    assert 0.078 < area.min() < 0.1
    assert area.max() > 0.9
    assert 0.74 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.35
    square = np.array([random_part(300, 300, rng) for _ in range(2000)])
    assert (
        abs(np.log((square[:, 2] - square[:, 0]) / (square[:, 3] - square[:, 1])).mean()) < 0.015
    )  # no side is longer
    assert np.allclose(random_part(10, 1000, rng), (493, 0, 507, 10), atol=1)  # nothing fits: the middle, 4 : 3


def test_a_seed_draws_a_part_and_another_seed_another(tmp_path):
    gradient = np.add.outer(np.arange(60), np.arange(90)).astype(np.uint8)[:, :, None].repeat(3, 2)
    Image.fromarray(gradient).save(tmp_path / "a.png")
    samples, _ = open_samples(tmp_path, INPUTS)
    first, again, other = (samples.cropped(np.zeros(1, int), np.array([s])).feeds["x"] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (1, 3, 4, 6)
