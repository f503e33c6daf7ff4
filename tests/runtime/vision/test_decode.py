"""The usual endings of detectors say the same boxes, each in its own way."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune import ReadError, UsageError
from onnx_prune.runtime.vision.decode import Form, _suppressed, make_decoder

SIZE = (96, 128)  # height, width: 12 x 16 + 6 x 8 + 3 x 4 cells
CELLS = 252
BOXES = np.array([[8.0, 16, 40, 48], [64, 32, 120, 80]])
CLASSES, SCORES = np.array([2, 0]), np.array([0.9, 0.8])


def centred(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def scored(rows=CELLS):
    """Boxes and class scores of as many rows, of which two say something; a third says the first one again."""
    boxes, scores = np.tile([1.0, 1, 3, 3], (rows, 1)), np.zeros((rows, 3))
    boxes[[5, 77, 78]] = [*BOXES, BOXES[1] + 1]
    scores[[5, 77, 78], [2, 0, 0]] = [*SCORES, 0.5]
    return boxes, scores


def yolov8():
    boxes, scores = scored()
    return {"output0": np.concatenate([centred(boxes), scores], 1).T[None]}


def yolov5():
    boxes, scores = scored(3 * CELLS)
    return {"output": np.concatenate([centred(boxes), np.ones((3 * CELLS, 1)), scores], 1)[None]}


def yolox():
    boxes, scores = scored()
    grid = [(x, y, s) for s in (8, 16, 32) for y in range(SIZE[0] // s) for x in range(SIZE[1] // s)]
    x, y, s = np.array(grid, float).T
    xywh = centred(boxes)
    raw = np.stack([xywh[:, 0] / s - x, xywh[:, 1] / s - y, np.log(xywh[:, 2] / s), np.log(xywh[:, 3] / s)], 1)
    return {"output": np.concatenate([raw, np.ones((CELLS, 1)), scores], 1)[None]}


def rows():
    return {"dets": np.concatenate([BOXES, SCORES[:, None], CLASSES[:, None]], 1)[None]}


def torchvision():
    return {"boxes": BOXES, "labels": CLASSES, "scores": SCORES}


def padded():
    """As TensorRT's EfficientNMS and TensorFlow's post-processing: so many of the rows are meant."""
    boxes = np.concatenate([BOXES, np.zeros((3, 4))])[None]
    scores, classes = np.r_[SCORES, 0.7, 0, 0][None], np.r_[CLASSES, 1, 0, 0][None].astype(np.float32)
    return {
        "num_detections": np.array([2.0]),
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
    }


def every_class():
    """Boxes, and a score a class."""
    boxes, scores = scored(100)
    return {"scores": scores[None].astype(np.float32), "boxes": boxes[None]}


FORMS = {f.__name__: f for f in (yolov8, yolov5, yolox, rows, torchvision, padded, every_class)}


@pytest.mark.parametrize("name", FORMS)
def test_boxes_are_told_from_the_shapes(name):
    (found,) = make_decoder("auto")(FORMS[name](), SIZE, Form())
    best = np.argsort(-found.scores)[:2]
    assert np.allclose(found.boxes[best], BOXES)
    assert found.classes[best].tolist() == CLASSES.tolist()
    assert np.allclose(found.scores[best], SCORES)
    assert len(found.boxes) == 2


def test_boxes_may_be_written_otherwise():
    shares = BOXES / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
    for order, boxes in (("xyxy", shares), ("yxyx", shares[:, [1, 0, 3, 2]]), ("cxcywh", centred(shares))):
        given = {"boxes": boxes, "labels": CLASSES, "scores": SCORES}
        (found,) = make_decoder("boxes")(given, SIZE, Form(order, relative=True))
        assert np.allclose(found.boxes, BOXES), order


def test_what_fits_nothing_is_said():
    for outputs in ({"a": np.zeros((1, 10))}, {"a": np.zeros((1, 7, 9))}, {"a": np.zeros(3), "b": np.zeros((1, 8, 8))}):
        with pytest.raises(UsageError, match="boxes"):
            make_decoder("auto")(outputs, SIZE, Form())
    with pytest.raises(UsageError, match="the input 252 cells"):
        make_decoder("yolox")({"a": np.zeros((1, 7, 9))}, SIZE, Form())
    with pytest.raises(UsageError, match="there is no decoder 'nonsense'"):
        make_decoder("nonsense")


def test_a_function_of_the_user_decodes(tmp_path, monkeypatch):
    (tmp_path / "my_decoder.py").write_text(
        "def decode(outputs, size):\n    return [(outputs['b'][0], [0.5, 0.4], [1, 0])]\n"
        "def odd(outputs, size):\n    return [(outputs['b'][0], [0.5], [1, 0])]\n"
        "def broken(outputs, size):\n    return outputs['nothing']\n"
    )
    monkeypatch.chdir(tmp_path)
    (found,) = make_decoder("my_decoder:decode")({"b": BOXES[None]}, SIZE, Form())
    assert np.array_equal(found.boxes, BOXES)
    assert found.classes.tolist() == [1, 0]
    for name, words in (("odd", "2 boxes, 1 scores, 2 classes"), ("broken", "KeyError: 'nothing'")):
        with pytest.raises(ReadError, match=words):
            make_decoder(f"my_decoder:{name}")({"b": BOXES[None]}, SIZE, Form())


def test_of_boxes_that_overlap_the_best_is_kept():
    rng = np.random.default_rng(0)
    corner = rng.random((60, 2)) * 40
    boxes = np.concatenate([corner, corner + 5 + rng.random((60, 2)) * 30], 1)

    def overlap(a, b):
        w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        both = max(w, 0) * max(h, 0)
        return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)

    kept = []
    for number, box in enumerate(boxes):
        if all(overlap(box, boxes[other]) <= 0.65 for other in kept):
            kept.append(number)
    assert _suppressed(boxes).tolist() == kept
    assert 10 < len(kept) < 60
