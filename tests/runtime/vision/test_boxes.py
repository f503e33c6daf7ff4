"""Boxes are read from COCO's, YOLO's and VOC's files, and are where the model sees them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx_prune import ReadError, UsageError
from onnx_prune.runtime.data.inputs import ModelInput
from onnx_prune.runtime.data.preprocess import Preprocessing
from onnx_prune.runtime.vision.boxes import box_batches

from .coloured import CELL, CELLS, CLASSES, MASKS, SIDE, objects, pixels, save, write_images

WANTED = ModelInput("input", np.dtype(np.float32), (1, 3, SIDE, SIDE))
CATEGORIES = (3, 17, 90)


def write_coco(folder, name="annotations/instances_val.json", images="val"):
    write_images(folder / images)
    rows = [
        {"id": n, "image_id": image, "category_id": CATEGORIES[c], "bbox": [x, y, CELL, CELL], "iscrowd": 0}
        for n, (image, c, x, y) in enumerate((i, *row) for i, grid in enumerate(CELLS) for row in objects(grid))
    ]
    table = {
        "images": [{"id": n, "file_name": f"{n:03}.png"} for n in range(len(CELLS))],
        "annotations": rows,
        "categories": [{"id": n, "name": str(n)} for n in reversed(CATEGORIES)],
    }
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(table))


def write_yolo(folder, outline=False):
    write_images(folder / "images/val")
    (folder / "labels/val").mkdir(parents=True)
    for number, grid in enumerate(CELLS):
        lines = []
        for c, x, y in objects(grid):
            left, top, right, bottom = (v / SIDE for v in (x, y, x + CELL, y + CELL))
            box = [(left + right) / 2, (top + bottom) / 2, CELL / SIDE, CELL / SIDE]
            lines.append(
                " ".join(map(str, [c, *([left, top, right, top, right, bottom, left, bottom] if outline else box)]))
            )
        (folder / f"labels/val/{number:03}.txt").write_text("\n".join(lines))


def write_voc(folder):
    write_images(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for number, grid in enumerate(CELLS):
        items = "".join(
            f"<object><name>{'abc'[c]}</name><difficult>{int(c == 2)}</difficult><bndbox><xmin>{x + 1}</xmin>"
            f"<ymin>{y + 1}</ymin><xmax>{x + CELL}</xmax><ymax>{y + CELL}</ymax></bndbox></object>"
            for c, x, y in objects(grid)
        )
        (folder / f"Annotations/{number:03}.xml").write_text(f"<annotation>{items}</annotation>")


def seen(boxed):
    return [row for batch in boxed.data for row in batch.labels]


def expected(grid):
    return sorted((c, x, y, x + CELL, y + CELL) for c, x, y in objects(grid))


def as_rows(found, ids):
    return sorted(
        (ids.index(c), *map(round, box)) for c, box in zip(found.classes.tolist(), found.boxes.tolist(), strict=True)
    )


@pytest.mark.parametrize("write", [write_coco, write_yolo, write_voc])
def test_the_objects_of_every_image_are_read(tmp_path, write):
    write(tmp_path)
    boxed = box_batches(tmp_path, WANTED)
    assert boxed.ids == (CATEGORIES if write is write_coco else tuple(range(CLASSES)))
    assert [as_rows(row, boxed.ids) for row in seen(boxed)] == [expected(grid) for grid in CELLS]
    crowds = np.concatenate([row.crowd for row in seen(boxed)])
    assert crowds.any() == (write is write_voc)


def test_outlines_are_boxes_and_a_part_of_the_folder_is_a_choice(tmp_path):
    write_yolo(tmp_path, outline=True)
    save(pixels(MASKS[0]), tmp_path / "images/train/x.png")
    boxed = box_batches(tmp_path / "images/val", WANTED)
    assert [as_rows(row, boxed.ids) for row in seen(boxed)] == [expected(grid) for grid in CELLS]


def test_an_image_without_a_file_shows_nothing(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "labels/val/002.txt").unlink()
    assert [len(row.boxes) for row in seen(box_batches(tmp_path, WANTED))][2] == 0


def test_of_several_files_one_is_named(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, "annotations/instances_train.json", "train")
    with pytest.raises(UsageError, match=r"2 of the \.json files"):
        box_batches(tmp_path, WANTED)
    boxed = box_batches(tmp_path / "annotations/instances_val.json", WANTED)
    assert [as_rows(row, boxed.ids) for row in seen(boxed)] == [expected(grid) for grid in CELLS]


def test_boxes_move_as_their_images_do(tmp_path):
    """Half of the height is cut away: what was above is gone, what is left is where the pixels are."""
    write_coco(tmp_path)
    boxed = box_batches(tmp_path, WANTED, Preprocessing(resize=(2 * SIDE, SIDE), crop=SIDE))
    for batch in boxed.data:
        (objects_,) = batch.labels
        for (x1, y1, x2, y2), number in zip(objects_.boxes.astype(int), objects_.classes, strict=True):
            inside = batch.feeds["input"][0, :, y1 + 2 : y2 - 2, x1 + 1 : x2 - 1]
            assert inside.size == 0 or (inside.mean((1, 2)).argmax() == CATEGORIES.index(number))
            assert (x2 - x1, y2 - y1) in ((CELL, 2 * CELL), (CELL, CELL))


def test_classes_are_those_of_the_list(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "classes.txt").write_text("z\nc\nb\na\n")
    boxed = box_batches(tmp_path, WANTED)
    assert boxed.ids == (0, 1, 2, 3)
    assert {int(c) for row in seen(boxed) for c in row.classes} == {1, 2, 3}
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(ReadError, match="'c' is not in the list of classes"):
        box_batches(tmp_path, WANTED)


@pytest.mark.parametrize(
    ("name", "text"),
    [("labels/val/000.txt", "0 0.5 0.5"), ("labels/val/000.txt", "cat 1 1 1 1"), ("Annotations/000.xml", "<a>"),
     ("Annotations/000.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), ("Annotations/000.xml", "<a><object/></a>")],
)  # fmt: skip
def test_broken_files_are_said(tmp_path, name, text):
    (write_yolo if name.endswith(".txt") else write_voc)(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ReadError, match="the boxes"):
        box_batches(tmp_path, WANTED)


def test_nothing_and_nonsense_are_said(tmp_path):
    write_images(tmp_path / "images")
    with pytest.raises(ReadError, match="no image has boxes"):
        box_batches(tmp_path, WANTED)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UsageError, match=r"0 of the \.json files"):
        box_batches(tmp_path, WANTED)
