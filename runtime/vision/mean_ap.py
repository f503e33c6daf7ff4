"""Mean average precision of a detector, as COCO measures it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ...passes.errors import UsageError
from ..data.sources import Batch
from ..device import Device
from ..progress import Count, silent
from ..session import Runnable, open_session
from .boxes import Objects
from .decode import Decoder, Form, Found, make_decoder


def require_pycocotools() -> None:
    """Raises UsageError where it is not installed."""
    if importlib.util.find_spec("pycocotools") is None:
        raise UsageError(
            "mean average precision needs pycocotools",
            where="--metric map",
            fix="pip install 'onnx-prune[detection]'",
        )


@dataclass(frozen=True, slots=True)
class Map:
    """Mean average precision over the classes and the overlaps of 0.5 to 0.95 (`map50`: of 0.5 alone), 0 to 1.

    decoder: how boxes are made of the outputs, see `decode.make_decoder`
    boxes: how they are written, for the decoders boxes and rows
    relative: whether they are shares of the input, not pixels
    first: the number of the first class that counts, 1 where 0 is the background
    ids: whether the model's classes are the numbers of the files (COCO's 1 to 90), not their places in the list
    """

    decoder: str = "auto"
    boxes: Literal["xyxy", "yxyx", "cxcywh"] = "xyxy"
    relative: bool = False
    first: int = 0
    ids: bool = False
    overlaps: tuple[float, ...] = field(default=(), kw_only=True)

    def of(
        self,
        model: Runnable,
        data: Iterable[Batch],
        ids: Sequence[int],
        device: Device = "auto",
        progress: Count = silent,
    ) -> float:
        """Of a model on batches whose labels are `Objects`; ids: the class numbers of the files, in order.

        Raises UsageError where the outputs are not what the decoder reads, or nothing is on the images.
        """
        decoder, session = make_decoder(self.decoder), open_session(model, device=device)
        true, found, done = [], [], 0
        for batch in data:
            assert batch.labels is not None, "there are objects for every image, or none"
            true += list(batch.labels)
            found += self._decoded(decoder, session.run(batch.feeds), batch)
            done += batch.size
            progress(done, None)
        return average_precision(true, [self._numbered(row, ids) for row in found], ids, self.overlaps)

    def _decoded(self, decoder: Decoder, outputs: Mapping[str, np.ndarray], batch: Batch) -> list[Found]:
        image = next(iter(batch.feeds.values()))
        height, width = (
            image.shape[1:3] if image.shape[3] in (1, 3) and image.shape[1] not in (1, 3) else image.shape[2:]
        )
        rows = decoder(outputs, (height, width), Form(self.boxes, self.relative))
        if len(rows) != batch.size:
            raise UsageError(
                f"the decoder found boxes for {len(rows)} of {batch.size} images",
                where=f"--metric map:decoder={self.decoder}",
                fix="let it return one (boxes, scores, classes) an image",
            )
        return rows

    def _numbered(self, row: Found, ids: Sequence[int]) -> Found:
        """With the class numbers of the files; what has none goes."""
        if self.ids:
            known = np.isin(row.classes, ids)
            return Found(row.boxes[known], row.scores[known], row.classes[known])
        place = row.classes - self.first
        known = (place >= 0) & (place < len(ids))
        return Found(row.boxes[known], row.scores[known], np.asarray(ids)[place[known]])


@dataclass(frozen=True, slots=True)
class Map50(Map):
    """The same at an overlap of 0.5 alone, as Pascal VOC has it."""

    overlaps: tuple[float, ...] = field(default=(0.5,), kw_only=True)


def average_precision(
    true: Sequence[Objects], found: Sequence[Found], ids: Sequence[int], overlaps: Sequence[float] = ()
) -> float:
    """What pycocotools says, over COCO's overlaps or these. Raises UsageError where there is nothing to be found."""
    require_pycocotools()
    from pycocotools.cocoeval import COCOeval

    if not any(len(row.boxes) for row in true):
        raise UsageError("there is nothing on the images", where="the evaluation data", fix="give images with boxes")
    boxes = [
        {
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "category_id": int(number),
            "iscrowd": int(crowd),
            "ignore": int(crowd),
        }
        for row in true
        for (x1, y1, x2, y2), number, crowd in zip(row.boxes.tolist(), row.classes, row.crowd, strict=True)
    ]
    images = np.repeat(np.arange(len(true)), [len(row.boxes) for row in true])
    rows = [
        row | {"image_id": int(image), "id": n} for n, (row, image) in enumerate(zip(boxes, images, strict=True), 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        whole = _table(rows, len(true), ids)
        scorer = COCOeval(whole, _results(whole, found), "bbox")
        if overlaps:
            scorer.params.iouThrs = np.asarray(overlaps)
        scorer.evaluate()
        scorer.accumulate()
    precision = scorer.eval["precision"][:, :, :, 0, 2]  # all sizes of objects, at most 100 an image
    return float(precision[precision > -1].mean()) if (precision > -1).any() else 0.0


def _table(rows: list[dict[str, Any]], images: int, ids: Sequence[int]) -> Any:  # noqa: ANN401 - untyped library
    from pycocotools.coco import COCO

    table: Any = COCO()
    table.dataset = {
        "info": {},
        "images": [{"id": n} for n in range(images)],
        "annotations": rows,
        "categories": [{"id": int(n)} for n in ids],
    }
    table.createIndex()
    return table


def _results(whole: Any, found: Sequence[Found]) -> Any:  # noqa: ANN401 - untyped library
    rows = [
        {"image_id": n, "category_id": int(number), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
        for n, row in enumerate(found)
        for (x1, y1, x2, y2), score, number in zip(row.boxes.tolist(), row.scores, row.classes, strict=True)
    ]
    return whole.loadRes(rows) if rows else _table([], len(found), whole.getCatIds())
