"""Masks of class numbers beside images, and the class of every pixel in what a model says."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ...passes.errors import ReadError, UsageError
from ..data.batches import Data
from ..data.inputs import ModelInput
from ..data.preprocess import Frame, Layout, Preprocessing
from ..data.sources import pictures
from .pairs import Folder, frame_reader, partners, target_batches

_FOLDERS = (
    "masks", "mask", "SegmentationClass", "SegmentationClassAug", "gtFine", "annotations", "labels", "label", "gt",
    "segmentations",
)  # fmt: skip
# Cityscapes: the classes that are trained on where they are there, else all that are known.
_ENDINGS = {
    "_leftImg8bit": ("_gtFine_labelTrainIds", "_gtFine_labelIds"),
    "": ("", "_mask", "_label", "_L", "_seg"),
}
_LAYOUT = (
    "put them in images/ and masks/ under the same names, or give a folder as of VOC, ADE20K, Cityscapes or CamVid"
)
_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B")  # pillow's kinds of images whose pixels are numbers


def mask_batches(
    path: Path,
    wanted: ModelInput,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> tuple[Data, Layout]:
    """Batches whose labels are masks, (height, width) integers in the frame of the model; where its channels are.

    path: a folder or zip. Raises ReadError where no image has a mask.
    """
    folder, reader = Folder.around(path), frame_reader(wanted, preprocessing)
    found = folder.images()
    masks = partners(found, pictures(folder.names), _FOLDERS, _ENDINGS)
    images = folder.listed("Segmentation", [name for name in found if name in masks])
    if not images:
        raise ReadError("no image has a mask", where=f"{path}: {len(found)} images", fix=_LAYOUT)
    target = partial(_mask, folder, masks)
    return target_batches(folder, images, target, wanted, reader, samples, seed), reader.layout


def _mask(folder: Folder, masks: Mapping[str, str], image: str, frame: Callable[[int, int], Frame]) -> np.ndarray:
    """Class numbers (height, width) of the image in its frame."""
    from PIL import Image

    name = masks[image]
    where = f"{folder.path}, {name}"
    try:
        with Image.open(io.BytesIO(folder.read(name))) as picture:
            if picture.mode not in _NUMBERS:
                raise ReadError(
                    "the mask has colours, not class numbers",
                    where=f"{where}: {PurePosixPath(name).suffix}, {picture.mode}",
                    fix="write one number a pixel (a PNG of one channel, or with a palette)",
                )
            return frame(picture.height, picture.width).mask(picture).astype(np.int64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ReadError("a mask cannot be read", where=f"{where}: {error}", fix="repair it, or remove it") from error


def classes_of(output: np.ndarray, layout: Layout, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """The class of every pixel, int64 (batch, height, width), and how many classes there are.

    output: scores (batch, classes, h, w), or (batch, h, w, classes) where images are so too; the highest one counts, at
    the size of the mask (linear in between, as usual). One channel of floats is that of an object: above 0, or above
    1/2 where all numbers are within 0..1. Integers (batch, h, w) or (batch, 1, h, w) are classes already.
    """
    if output.ndim == 4 and layout == "NHWC":
        output = output.transpose(0, 3, 1, 2)
    if output.dtype.kind in "iub":
        numbers = output.reshape(len(output), *output.shape[-2:]).astype(np.int64)
        return np.stack([_resized(row.astype(np.float32), size, smooth=False) for row in numbers]).astype(np.int64), 0
    scores = output if output.ndim == 4 else output[:, None]
    if scores.shape[1] == 1:
        share = scores.min() >= 0 and scores.max() <= 1
        planes = np.stack([_resized(row[0], size) for row in scores])
        return (planes > (0.5 if share else 0.0)).astype(np.int64), 2
    return np.stack([_highest(row, size) for row in scores]), scores.shape[1]


def _highest(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The class (height, width) of the highest score, of (classes, h, w), one class at a time: there may be many."""
    best, found = np.full(size, -np.inf, np.float32), np.zeros(size, np.int64)
    for number, plane in enumerate(scores):
        value = _resized(plane, size)
        higher = value > best
        best[higher], found[higher] = value[higher], number
    return found


def _resized(plane: np.ndarray, size: tuple[int, int], *, smooth: bool = True) -> np.ndarray:
    if plane.shape == size:
        return plane
    from PIL import Image

    kind = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.asarray(plane, np.float32)).resize((size[1], size[0]), kind))


def map_output(outputs: Mapping[str, np.ndarray], batch: int) -> np.ndarray:
    """The first output that has a number, or some, for every pixel. Raises UsageError where none has."""
    for value in outputs.values():
        if len(value) == batch and (value.ndim == 4 or (value.ndim == 3 and value.dtype.kind in "iub")):
            return value
    words = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
    raise UsageError(
        "no output has a class for every pixel",
        where=f"--metric miou: {words}",
        fix="outputs are (batch, classes, height, width), or integers (batch, height, width); else --metric "
        "module:function",
    )
