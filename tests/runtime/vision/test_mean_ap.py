"""Mean average precision against its definition on small cases."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune import UsageError
from onnx_prune.runtime.vision.boxes import Objects
from onnx_prune.runtime.vision.decode import Found
from onnx_prune.runtime.vision.mean_ap import average_precision

pytest.importorskip("pycocotools", reason="mean average precision needs the extra 'detection'")
BOX = np.array([[10.0, 10, 30, 30]])


def one(number=0, crowd=False):
    return Objects(BOX, np.array([number]), np.array([crowd]))


def found(boxes, scores, classes=None):
    return Found(
        np.asarray(boxes, float).reshape(-1, 4), np.asarray(scores, float), np.asarray(classes or [0] * len(scores))
    )


def test_a_box_that_is_right_counts_fully_and_one_that_is_off_by_its_overlap():
    assert average_precision([one()], [found(BOX, [0.3])], [0]) == pytest.approx(1)
    shifted = BOX + np.array([4, 0, 4, 0])  # overlap 16 x 20 of 24 x 20: 2/3, so at 0.5, 0.55, 0.6, 0.65 of ten
    assert average_precision([one()], [found(shifted, [0.3])], [0]) == pytest.approx(0.4)
    assert average_precision([one()], [found(shifted, [0.3])], [0], (0.5,)) == pytest.approx(1)


def test_a_surer_wrong_box_halves_the_precision_and_a_missed_object_the_recall():
    wrong = np.concatenate([BOX + 40, BOX])
    assert average_precision([one()], [found(wrong, [0.9, 0.3])], [0]) == pytest.approx(0.5)
    nothing = found(np.zeros((0, 4)), [])
    half = average_precision([one(), one()], [found(BOX, [0.9]), nothing], [0])
    assert half == pytest.approx(51 / 101)  # precision 1 at the recalls 0, 0.01, ... 0.5


def test_it_is_the_mean_over_the_classes_that_are_there():
    true = [one(0), one(1)]
    guesses = [found(BOX, [0.9], [0]), found(BOX, [0.9], [0])]
    assert average_precision(true, guesses, [0, 1, 2]) == pytest.approx((1 + 0) / 2, abs=0.26)
    assert average_precision(true, [found(BOX, [0.9], [0]), found(BOX, [0.9], [1])], [0, 1, 2]) == pytest.approx(1)


def test_crowds_count_neither_way():
    assert average_precision([one(), one(crowd=True)], [found(BOX, [0.9]), found(BOX, [0.95])], [0]) == pytest.approx(1)


def test_nothing_found_is_nothing_and_nothing_to_find_is_said():
    nothing = found(np.zeros((0, 4)), [])
    assert average_precision([one()], [nothing], [0]) == 0
    with pytest.raises(UsageError, match="there is nothing on the images"):
        average_precision([Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))], [nothing], [0])
