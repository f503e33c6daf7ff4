"""Masks are found in the usual folders, and the class of a pixel in the usual outputs."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
from onnx_prune import ReadError, UsageError
from onnx_prune.runtime.data.inputs import ModelInput
from onnx_prune.runtime.data.preprocess import Preprocessing
from onnx_prune.runtime.vision.masks import classes_of, map_output, mask_batches
from PIL import Image

from .coloured import MASKS, pixels, save, write_images

WANTED = ModelInput("input", np.dtype(np.float32), (None, 3, 64, 64))
LAYOUTS = {
    "side by side": ("images/{}.png", "masks/{}.png"),
    "endings": ("{}.png", "{}_mask.png"),
    "voc": ("JPEGImages/{}.png", "SegmentationClass/{}.png"),
    "ade20k": ("images/validation/{}.png", "annotations/validation/{}.png"),
    "cityscapes": ("leftImg8bit/val/aachen/{}_leftImg8bit.png", "gtFine/val/aachen/{}_gtFine_labelTrainIds.png"),
    "camvid": ("val/{}.png", "valannot/{}.png"),
    "split": ("val/images/{}.png", "val/masks/{}.png"),
}


def written(folder, image, mask):
    for number, row in enumerate(MASKS):
        save(pixels(row), folder / image.format(f"{number:03}"))
        save(row, folder / mask.format(f"{number:03}"))


def opened(path, wanted=WANTED, **more):
    data, _ = mask_batches(path, wanted, **more)
    return np.concatenate([batch.feeds["input"] for batch in data]), [m for batch in data for m in batch.labels]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_masks_are_found_in_the_usual_folders(tmp_path, layout):
    written(tmp_path, *LAYOUTS[layout])
    images, masks = opened(tmp_path)
    assert np.array_equal(masks, MASKS)
    assert np.allclose(images, pixels(MASKS).transpose(0, 3, 1, 2) / 255, atol=1e-6)


def test_a_zip_is_a_folder_and_a_part_of_a_folder_is_a_choice(tmp_path):
    written(tmp_path / "data", "images/val/{}.png", "masks/val/{}.png")
    save(pixels(MASKS[0]), tmp_path / "data/images/train/x.png")
    save(MASKS[0], tmp_path / "data/masks/train/x.png")
    assert len(opened(tmp_path / "data")[1]) == len(MASKS) + 1
    assert len(opened(tmp_path / "data/images/val")[1]) == len(MASKS)
    shutil.copytree(tmp_path / "data", tmp_path / "images")  # a folder of that name that holds both
    assert len(opened(tmp_path / "images")[1]) == len(MASKS) + 1
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in (tmp_path / "data").rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path / "data"))
    assert len(opened(tmp_path / "data.zip")[1]) == len(MASKS) + 1


def test_the_list_of_validation_images_counts(tmp_path):
    written(tmp_path, *LAYOUTS["voc"])
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("001\n004\n")
    assert np.array_equal(opened(tmp_path)[1], MASKS[[1, 4]])


def test_masks_are_cut_and_resized_as_their_images_are(tmp_path):
    """A class number of 40 times the pixel: the mask of an image is the image, whatever is cut of it."""
    grid = np.arange(4).repeat(25)[None].repeat(60, 0)  # 60 x 100 pixels, four stripes
    save(np.stack([grid * 60] * 3, -1), tmp_path / "images/a.png")
    save(grid, tmp_path / "masks/a.png")
    for preprocessing in (
        None,
        Preprocessing(resize=64),
        Preprocessing(resize=(64, 128)),
        Preprocessing(crop=64, resize=80),
    ):
        images, (mask,) = opened(tmp_path, preprocessing=preprocessing)
        assert mask.shape == (64, 64)
        stripes = images[0, 0] * 255 / 60
        assert np.mean(np.abs(stripes - mask) < 0.5) > 0.96, preprocessing


def test_what_is_no_mask_is_said(tmp_path):
    write_images(tmp_path / "images")
    with pytest.raises(ReadError, match="no image has a mask"):
        opened(tmp_path)
    write_images(tmp_path / "masks")
    with pytest.raises(ReadError, match="the mask has colours"):
        opened(tmp_path)
    for number in range(len(MASKS)):
        (tmp_path / f"masks/{number:03}.png").write_bytes(b"nothing")
    with pytest.raises(ReadError, match="a mask cannot be read"):
        opened(tmp_path)
    with pytest.raises(ReadError, match="no such file"):
        opened(tmp_path / "elsewhere")


def test_palettes_are_class_numbers(tmp_path):
    write_images(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    for number, mask in enumerate(MASKS):
        image = Image.fromarray(np.asarray(mask, np.uint8), "P")
        image.putpalette([v % 256 for v in range(768)])
        image.save(tmp_path / f"masks/{number:03}.png")
    assert np.array_equal(opened(tmp_path)[1], MASKS)


def test_the_class_of_a_pixel_is_the_highest_score_at_the_size_of_the_mask():
    scores = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
    assert np.array_equal(classes_of(scores, "NCHW", (6, 7))[0], scores.argmax(1))
    assert np.array_equal(classes_of(scores.transpose(0, 2, 3, 1), "NHWC", (6, 7))[0], scores.argmax(1))
    torch = pytest.importorskip("torch")
    larger = torch.nn.functional.interpolate(torch.from_numpy(scores), (24, 21), mode="bilinear", align_corners=False)
    assert np.mean(classes_of(scores, "NCHW", (24, 21))[0] == larger.argmax(1).numpy()) > 0.999


def test_one_channel_is_an_object_and_integers_are_classes():
    logits = np.array([[[[-1.0, 2.0], [0.3, -0.2]]]], np.float32)
    assert classes_of(logits, "NCHW", (2, 2))[0].tolist() == [[[0, 1], [1, 0]]]
    shares = 1 / (1 + np.exp(-logits))
    assert classes_of(shares, "NCHW", (2, 2))[0].tolist() == [[[0, 1], [1, 0]]]
    numbers = np.array([[[3, 1], [0, 2]]], np.int64)
    assert np.array_equal(classes_of(numbers, "NCHW", (2, 2))[0], numbers)
    assert np.array_equal(classes_of(numbers[:, None], "NCHW", (4, 4))[0], numbers.repeat(2, 1).repeat(2, 2))
    with pytest.raises(UsageError, match="no output has a class for every pixel"):
        map_output({"logits": np.zeros((1, 10))}, 1)
