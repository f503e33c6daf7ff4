"""Mean IoU against its definition, and what of masks counts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune import ReadError, UsageError
from onnx_prune.runtime.data.inputs import ModelInput
from onnx_prune.runtime.vision.masks import mask_batches
from onnx_prune.runtime.vision.miou import Miou, mean_iou

from .coloured import MASKS, blinder, colour_network, save, write_images

WANTED = ModelInput("input", np.dtype(np.float32), (None, 3, 64, 64))


@pytest.fixture(scope="module")
def network():
    return colour_network()


def written(folder, masks=MASKS):
    write_images(folder / "images")
    for number, mask in enumerate(masks):
        save(mask, folder / f"masks/{number:03}.png")
    return folder


def score(network, folder, **options):
    data, layout = mask_batches(folder, WANTED)
    return Miou(**options).of(network, data, layout)


def by_definition(true, predicted, classes):
    pairs = [((true == c) & (predicted == c), (true == c) | (predicted == c)) for c in range(classes)]
    return np.mean([both.sum() / either.sum() for both, either in pairs if either.any()])


def test_who_sees_every_pixel_scores_one_and_who_misses_a_class_by_the_definition(tmp_path, network):
    folder = written(tmp_path)
    assert score(network, folder) == 1
    blind = blinder(network, 2)
    assert isinstance(blind, onnx.ModelProto)
    data, _ = mask_batches(folder, WANTED)
    from onnx_prune.runtime.session import open_session

    predicted = np.concatenate([open_session(blind).run(b.feeds)["scores"].argmax(1) for b in data])
    assert score(blind, folder) == pytest.approx(by_definition(MASKS, predicted, 4))
    assert score(blind, folder) < 0.8


def test_pixels_that_are_ignored_do_not_count(tmp_path, network):
    wrong = np.where(MASKS == 3, 1, MASKS)
    assert score(network, written(tmp_path / "wrong", wrong)) < 0.9
    for number in (255, 9):
        folder = written(tmp_path / str(number), np.where(MASKS == 3, number, MASKS))
        assert score(network, folder, ignore=number) > score(network, tmp_path / "wrong")


def test_classes_may_start_at_one(tmp_path, network):
    assert score(network, written(tmp_path, MASKS + 1), first=1) == 1


def test_masks_of_0_and_255_are_of_one_object(tmp_path, network):
    folder = written(tmp_path, np.where(MASKS > 0, 255, 0))
    confusion = Miou(binary=True).confusion(network, *mask_batches(folder, WANTED))
    assert confusion[0, 0] == (MASKS == 0).sum()
    assert confusion[1].sum() == (MASKS > 0).sum()


def test_a_class_that_the_model_has_not_is_said(tmp_path, network):
    with pytest.raises(ReadError, match="a mask has class 7, and the model has 4"):
        score(network, written(tmp_path, np.where(MASKS == 3, 7, MASKS)))


def test_no_pixel_that_counts_is_said(tmp_path, network):
    with pytest.raises(UsageError, match="no pixel of the masks counts"):
        score(network, written(tmp_path, np.full_like(MASKS, 255)))


def test_the_mean_is_over_the_classes_that_are_there():
    assert mean_iou(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])) == pytest.approx((3 / 4 + 4 / 5) / 2)
