"""Crops, flips and holes against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx_prune.runtime.torch.training.augment import Draws, draw, holed, moved

IMAGES = np.random.default_rng(0).integers(1, 255, (3, 2, 5, 8)).astype(np.uint8)
SHIFT = np.array([[0, 0], [2, -1], [-1, 3]])
FLIP = np.array([True, False, True])


def shifted(image, rows, columns):
    """Every pixel is the one that stood so many rows and columns further on, zeros beyond the edge."""
    result = np.zeros_like(image)
    height, width = image.shape[1:]
    for i in range(height):
        for j in range(width):
            if 0 <= i + rows < height and 0 <= j + columns < width:
                result[:, i, j] = image[:, i + rows, j + columns]
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_shifted_and_zeros_come_in(dtype):
    images = IMAGES.astype(dtype)
    result = moved(torch.from_numpy(images), Draws(shift=torch.from_numpy(SHIFT))).numpy()
    assert result.dtype == dtype
    for image, (rows, columns), ours in zip(images, SHIFT, result, strict=True):
        np.testing.assert_array_equal(ours, shifted(image, rows, columns))


def test_images_are_flipped():
    result = moved(torch.from_numpy(IMAGES), Draws(flip=torch.from_numpy(FLIP))).numpy()
    expected = np.where(FLIP[:, None, None, None], IMAGES[..., ::-1], IMAGES)
    np.testing.assert_array_equal(result, expected)


def test_a_flipped_and_shifted_image_has_the_same_pixels_left_to_right():
    draws = Draws(shift=torch.from_numpy(SHIFT * 0), flip=torch.from_numpy(FLIP))
    expected = moved(torch.from_numpy(IMAGES), Draws(flip=torch.from_numpy(FLIP)))
    assert torch.equal(moved(torch.from_numpy(IMAGES), draws), expected)


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.0, 0.99), (0.99, 0.0)])
def test_a_hole_is_a_square_around_its_centre_as_far_as_it_is_inside(centre):
    images = torch.ones(1, 2, 12, 16)
    hole = (holed(images, Draws(hole=torch.tensor([centre]))) == 0).numpy()[0]
    assert (hole[0] == hole[1]).all()
    rows, columns = np.flatnonzero(hole[0].any(1)), np.flatnonzero(hole[0].any(0))
    assert hole[0][np.ix_(rows, columns)].all()
    assert len(rows) <= 6
    assert len(columns) <= 6
    assert hole[0][int(centre[0] * 12), int(centre[1] * 16)]
    if centre == (0.5, 0.5):
        assert len(rows) == len(columns)


def test_what_is_not_asked_for_is_not_drawn_and_changes_no_other_draw():
    alone = draw(["flip"], 6, (8, 8), np.random.default_rng(3))
    together = draw(["crop", "flip", "cutout", "mixup"], 6, (8, 8), np.random.default_rng(3))
    assert (alone.shift, alone.hole, alone.partner, alone.share) == (None, None, None, 1.0)
    assert torch.equal(alone.flip, together.flip)
    assert sorted(together.partner.tolist()) == list(range(6))
    assert together.shift.abs().max() <= 1
    assert 0 <= together.share <= 1


def test_nothing_to_do_gives_the_images_themselves():
    images = torch.from_numpy(IMAGES)
    assert moved(images, Draws()) is images
    assert holed(images, Draws()) is images
