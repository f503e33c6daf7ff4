"""From a detector's outputs to boxes: the usual endings of exported detectors, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ...passes.errors import UsageError
from ..data.functions import failed, imported, is_theirs, names_function, users_code

Outputs = Mapping[str, np.ndarray]
Size = tuple[int, int]  # height, width of the model's input
_STRIDES = (8, 16, 32)
_LEAST, _MOST, _OVERLAP = 1e-3, 300, 0.65  # scores that count, boxes an image, intersection over union of one object


@dataclass(frozen=True, slots=True)
class Found:
    """What a model finds on one image.

    boxes: x1, y1, x2, y2 (n, 4) in pixels of its input
    scores, classes: (n,)
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True, slots=True)
class Form:
    """How boxes are written: xyxy, yxyx or cxcywh (centre, width, height), in pixels or in shares of the input."""

    order: str = "xyxy"
    relative: bool = False

    def corners(self, boxes: np.ndarray, size: Size) -> np.ndarray:
        """x1, y1, x2, y2 in pixels, float64, of boxes (..., 4)."""
        boxes = np.asarray(boxes, np.float64)
        if self.order == "yxyx":
            boxes = boxes[..., [1, 0, 3, 2]]
        if self.order == "cxcywh":
            boxes = np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)
        return boxes * np.array([*size[::-1]] * 2) if self.relative else boxes


Decoder = Callable[[Outputs, Size, Form], list[Found]]


def _rows(outputs: Outputs, size: Size, form: Form) -> list[Found]:
    """(batch, n, 6): a box, its score, its class: YOLOv10, RT-DETR and others that end in their own selection."""
    value = _only(outputs, "rows")
    return [Found(form.corners(row[:, :4], size), row[:, 4], row[:, 5].astype(np.int64)) for row in value]


def _yolov8(outputs: Outputs, size: Size, _form: Form) -> list[Found]:
    """(batch, 4 + classes, n): centre, width, height in pixels, and a score a class: YOLOv8, v9, v11."""
    value = _only(outputs, "yolov8").transpose(0, 2, 1)
    return [_selected(Form("cxcywh").corners(row[:, :4], size), row[:, 4:]) for row in value]


def _yolov5(outputs: Outputs, size: Size, _form: Form) -> list[Found]:
    """(batch, n, 5 + classes): centre, width, height in pixels, how sure, and a score a class: YOLOv5, v7."""
    value = _only(outputs, "yolov5")
    return [_selected(Form("cxcywh").corners(row[:, :4], size), row[:, 4:5] * row[:, 5:]) for row in value]


def _yolox(outputs: Outputs, size: Size, _form: Form) -> list[Found]:
    """The same before the grid is put in: x, y from the cell, the logarithms of width and height, in strides."""
    value = np.array(_only(outputs, "yolox"), np.float64)
    grid, stride = _grid(size)
    if value.shape[1] != len(grid):
        raise UsageError(
            f"the output has {value.shape[1]} rows, and the input {len(grid)} cells",
            where="--metric map:decoder=yolox",
            fix="choose another decoder, or --metric map:decoder=module:function",
        )
    value[..., :2] = (value[..., :2] + grid) * stride
    value[..., 2:4] = np.exp(value[..., 2:4]) * stride
    return _yolov5({"": value}, size, _form)


def _grid(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """(cells, 2) x and y of each cell of the three strides, (cells, 1) its stride."""
    cells, strides = [], []
    for stride in _STRIDES:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def _boxes(outputs: Outputs, size: Size, form: Form) -> list[Found]:
    """Boxes (batch, n, 4), scores and classes (batch, n) or scores (batch, n, classes); without a batch for one."""
    boxes = next((v for v in outputs.values() if v.shape[-1:] == (4,) and v.ndim in (2, 3)), None)
    if boxes is None:
        raise _unfit(outputs, "boxes")
    rows = boxes.shape[:-1]
    alike = {name: value for name, value in outputs.items() if value is not boxes and value.shape[: len(rows)] == rows}
    each = {name: value for name, value in alike.items() if value.ndim == len(rows)}
    many = next((v for v in alike.values() if v.ndim == len(rows) + 1 and v.dtype.kind == "f"), None)
    corners = form.corners(boxes, size).reshape(-1, boxes.shape[-2], 4)
    if many is not None and len(each) < 2:
        return [_selected(box, score) for box, score in zip(corners, many.reshape(*corners.shape[:2], -1), strict=True)]
    classes = next(
        (n for n, v in each.items() if v.dtype.kind in "iu" or "class" in n.lower() or "label" in n.lower()), None
    )
    scores = next((n for n, v in each.items() if n != classes and v.dtype.kind == "f"), None)
    if classes is None or scores is None:
        raise _unfit(outputs, "boxes")
    flat = [each[name].reshape(corners.shape[:2]) for name in (scores, classes)]
    counts = _counts(outputs, corners.shape[:2])
    return [
        Found(box[:n], score[:n], number[:n].astype(np.int64))
        for box, score, number, n in zip(corners, *flat, counts, strict=True)
    ]


def _counts(outputs: Outputs, shape: tuple[int, ...]) -> list[int]:
    """How many of the rows of each image are meant: an output of one number an image says it (num_detections)."""
    for name, value in outputs.items():
        if "num" in name.lower() and value.size == shape[0]:
            return value.reshape(-1).astype(int).tolist()
    return [shape[1]] * shape[0]


DECODERS: Mapping[str, Decoder] = {
    "boxes": _boxes,
    "rows": _rows,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolox": _yolox,
}


def make_decoder(chosen: str) -> Decoder:
    """By its name, `auto` by the shapes of the outputs, or the user's module:function. Raises UsageError, ReadError.

    The function gets {output: array} of a batch and (height, width) of the input, and returns for each image boxes
    x1, y1, x2, y2 (n, 4) in pixels of the input, scores (n,) and classes (n,).
    """
    if chosen in DECODERS:
        return DECODERS[chosen]
    if chosen == "auto":
        return lambda outputs, size, form: DECODERS[_form_of(outputs, size)](outputs, size, form)
    if names_function(chosen):
        return _own(chosen)
    raise UsageError(
        f"there is no decoder '{chosen}'",
        where="--metric map",
        fix=f"choose one of auto, {', '.join(DECODERS)}, or module:function",
    )


def _form_of(outputs: Outputs, size: Size) -> str:
    """The decoder that the shapes ask for. Raises UsageError where none or several would do."""
    if len(outputs) > 1:
        return "boxes"
    (value,) = outputs.values()
    cells = len(_grid(size)[0])
    if value.ndim == 3:
        _, first, second = value.shape
        if second == 6 and first not in (cells, 3 * cells):
            return "rows"
        if first in (cells, 3 * cells) and second > 5:
            return "yolox" if first == cells else "yolov5"
        if second == cells and first > 4:
            return "yolov8"
    raise _unfit(outputs, "auto")


def _own(name: str) -> Decoder:
    what = "that decodes boxes"
    function = imported(name, what)

    def decode(outputs: Outputs, size: Size, _form: Form) -> list[Found]:
        try:
            with users_code():
                return [_user_row(*row) for row in function(dict(outputs), size)]
        except BaseException as error:
            if not is_theirs(error):
                raise
            raise failed(error, name, what) from error

    return decode


def _user_row(boxes: object, scores: object, classes: object) -> Found:
    found = Found(
        np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64), np.asarray(classes, np.int64)
    )
    if not len(found.boxes) == len(found.scores) == len(found.classes):
        raise ValueError(f"{len(found.boxes)} boxes, {len(found.scores)} scores, {len(found.classes)} classes")
    return found


def _only(outputs: Outputs, name: str) -> np.ndarray:
    value = next((value for value in outputs.values() if value.ndim == 3), None)
    if value is None or (name == "rows" and value.shape[2] < 6):
        raise _unfit(outputs, name)
    return value


def _unfit(outputs: Outputs, name: str) -> UsageError:
    words = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
    return UsageError(
        "it cannot be told from the outputs what boxes they are"
        if name == "auto"
        else "the outputs are not such boxes",
        where=f"--metric map:decoder={name}: {words}",
        fix=f"choose map:decoder= of {', '.join(DECODERS)}, or module:function, your own decoder",
    )


# ---- one box an object


def _selected(boxes: np.ndarray, scores: np.ndarray) -> Found:
    """The best box of each object: of boxes of one class that overlap, the one of the highest score.

    boxes: (n, 4); scores: (n, classes)
    """
    place, number = np.nonzero(scores > _LEAST)
    values = scores[place, number]
    order = np.argsort(-values, kind="stable")[: 30 * _MOST]
    place, number, values = place[order], number[order], values[order]
    # Boxes of different classes are moved apart, so that one pass does for all.
    apart = boxes[place] + (number * (np.ptp(boxes) + 1 if boxes.size else 1.0))[:, None]
    kept = _suppressed(apart)[:_MOST]
    return Found(boxes[place][kept], values[kept], number[kept].astype(np.int64))


def _suppressed(boxes: np.ndarray) -> np.ndarray:
    """Which of these boxes, the best first, overlap no better one that is kept: greedy non-maximum suppression."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    waiting, kept = np.arange(len(boxes)), []
    while waiting.size and len(kept) < _MOST:
        best, rest = waiting[0], waiting[1:]
        kept.append(best)
        corner = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = np.prod(corner.clip(0), 1)
        waiting = rest[shared <= _OVERLAP * (area[best] + area[rest] - shared)]
    return np.array(kept, np.int64)
