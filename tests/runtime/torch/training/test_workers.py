"""Images that are decoded by other processes are those that this one would decode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx_prune import models
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.torch.training.data import training_data
from onnx_prune.runtime.torch.training.finetune import finetune
from onnx_prune.runtime.torch.training.recipe import Recipe
from onnx_prune.runtime.torch.training.run import Examples
from PIL import Image

CPU = torch.device("cpu")
# On a machine of one core torch says that one reader would do.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
MODEL = models.lenet5()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """40 images of 40 to 70 pixels in 2 classes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(40):
        (folder / str(number % 2)).mkdir(exist_ok=True)
        size = rng.integers(40, 70, 2)
        pixels = rng.integers(0, 256, (*size, 1), np.uint8) // (1 + number % 2)
        Image.fromarray(pixels.repeat(3, 2)).save(folder / str(number % 2) / f"{number}.png")
    return folder


def opened(images, **recipe):
    return training_data(images, model_inputs(MODEL), None, Recipe(**recipe), CPU)


def drawn(data, seed=0):
    rng = np.random.default_rng(seed)
    shares = [data.share(np.arange(start, start + 8), slice(0, 8), rng) for start in range(0, 40, 8)]
    return [(inputs[0], labels.own) for inputs, labels in data.batches(shares)]


def test_other_processes_read_what_this_one_reads(images):
    words = ("resized-crop", "flip")
    alone, shared = (drawn(opened(images, augment=words, workers=count)) for count in (1, 2))
    for (x, y), (x2, y2) in zip(alone, shared, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not torch.equal(alone[0][0], drawn(opened(images, augment=words, workers=1), seed=1)[0][0])
    assert not torch.equal(alone[0][0], drawn(opened(images, augment=("flip",)))[0][0])


def test_mixup_mixes_parts_of_both_images(images):
    data = opened(images, augment=("resized-crop", "mixup"), workers=1)
    share = data.share(np.arange(8), slice(0, 4), np.random.default_rng(3))
    assert len(share.indices) == len(share.draws.part) == 8
    ((inputs, labels),) = data.batches([share])
    assert len(inputs[0]) == 4
    assert labels.other is not None


def test_a_process_says_what_it_could_not_read(images, tmp_path):
    for file in images.rglob("*.png"):
        (tmp_path / file.parent.name).mkdir(exist_ok=True)
        (tmp_path / file.parent.name / file.name).write_bytes(file.read_bytes())
    data = opened(tmp_path, augment=("resized-crop",), workers=2)
    (tmp_path / "1" / "13.png").write_bytes(b"no image")
    with pytest.raises(ReadError, match="an image cannot be read"):
        drawn(data)


def test_random_parts_are_of_image_files(images):
    arrays = {"input": np.zeros((8, 1, 28, 28), np.float32), "label": np.zeros(8, np.int64)}
    with pytest.raises(UsageError, match="random parts are taken of image files"):
        training_data(arrays, model_inputs(MODEL), None, Recipe(augment=("resized-crop",)), CPU)


def test_a_part_of_the_training_data_is_balanced(images):
    data = opened(images, train_samples=10, augment=())
    assert data.samples.count == 10
    assert np.bincount(data.samples.labels).tolist() == [5, 5]
    streamed = opened(images, train_samples=10, augment=("resized-crop",), workers=2)
    (x, y), *_ = [
        (i[0], t.own)
        for i, t in streamed.batches([streamed.share(np.arange(10), slice(0, 10), np.random.default_rng(0))])
    ]
    assert len(x) == 10
    assert y.tolist() == streamed.samples.labels.tolist() == data.samples.labels.tolist()


def test_training_does_not_depend_on_how_many_decode(images):
    recipe = {"epochs": 1, "batch": 8, "augment": ("resized-crop", "flip"), "labels": 1.0, "precision": "float32"}
    found = [finetune(MODEL, Examples(images), Recipe(**recipe, workers=count)).model for count in (1, 2)]
    assert found[0].SerializeToString() == found[1].SerializeToString()
