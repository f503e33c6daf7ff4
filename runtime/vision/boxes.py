"""What is on images, as boxes: COCO's JSON, YOLO's text files, Pascal VOC's XML."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from ...passes.errors import ReadError, UsageError
from ..data.batches import Data
from ..data.inputs import ModelInput
from ..data.preprocess import Frame, Preprocessing
from .pairs import Folder, frame_reader, partners, target_batches

_LAYOUT = "give a COCO .json or the folder with it, YOLO's images/ and labels/, or VOC's JPEGImages/ and Annotations/"
_CLASS_LISTS = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels")
Sizes = Callable[[int, int], Frame]


@dataclass(frozen=True, slots=True)
class Objects:
    """What is on one image.

    boxes: x1, y1, x2, y2 (n, 4) in pixels
    classes: (n,) numbers, as the files give them
    crowd: (n,) whether finding it counts neither for nor against: a crowd, or one that is marked as difficult
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray

    def framed(self, frame: Frame) -> Objects:
        """In pixels of what the model sees; what lies outside goes."""
        boxes = frame.boxes(self.boxes)
        seen = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Objects(boxes[seen], self.classes[seen], self.crowd[seen])


@dataclass(frozen=True, slots=True)
class Boxed:
    """Batches whose labels are `Objects` in the frame of the model, and the class numbers of the files, in order."""

    data: Data
    ids: tuple[int, ...]


def box_batches(
    path: Path,
    wanted: ModelInput,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Boxed:
    """Open a folder or zip of images with boxes, or a COCO .json. Raises ReadError where it is none of these."""
    listed = path.suffix.lower() == ".json"
    folder = Folder(_root(path)) if listed else Folder.around(path)
    found = folder.images()
    known, ids = _known(folder, path if listed else None, found)
    reader = frame_reader(wanted, preprocessing)

    def target(image: str, frame: Sizes) -> Objects:
        height, width = _size(folder, image)
        return known[image](height, width).framed(frame(height, width))

    data = target_batches(folder, list(known), target, wanted, reader, samples, seed)
    return Boxed(data, ids)


Known = Mapping[str, Callable[[int, int], Objects]]  # image -> (height, width) -> what is on it


def _known(folder: Folder, json_file: Path | None, images: Sequence[str]) -> tuple[Known, tuple[int, ...]]:
    jsons = [name for name in folder.names if name.lower().endswith(".json")]
    if json_file is not None or (jsons and not any(name.endswith((".txt", ".xml")) for name in folder.names)):
        return _coco(folder, json_file, jsons, images)
    xml = partners(
        images, [name for name in folder.names if name.endswith(".xml")], ("Annotations", "annotations"), _SAME
    )
    if xml:
        return _voc(folder, xml, folder.listed("Main", list(xml)))
    texts = [name for name in folder.names if name.endswith(".txt") and PurePosixPath(name).name not in _CLASS_LISTS]
    rows = partners(images, texts, ("labels",), _SAME)
    if rows:
        return _yolo(folder, rows, images)
    if jsons:
        return _coco(folder, None, jsons, images)
    raise ReadError("no image has boxes", where=f"{folder.path}: {len(images)} images", fix=_LAYOUT)


_SAME = {"": ("",)}


def _size(folder: Folder, image: str) -> tuple[int, int]:
    """Height and width, from the file's head."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(folder.read(image))) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ReadError("an image cannot be read", where=f"{folder.path}, {image}: {error}", fix="remove it") from error


def _objects(rows: Sequence[Sequence[float]], classes: Sequence[int], crowd: Sequence[bool]) -> Objects:
    return Objects(np.array(rows, float).reshape(-1, 4), np.array(classes, np.int64), np.array(crowd, bool))


# ---- COCO


def _root(path: Path) -> Path:
    """The folder that images of a .json are looked for in: its own, or that around annotations/."""
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _coco(
    folder: Folder, chosen: Path | None, jsons: Sequence[str], images: Sequence[str]
) -> tuple[Known, tuple[int, ...]]:
    files = [chosen.relative_to(folder.path).as_posix()] if chosen is not None else list(jsons)
    tables = {name: table for name in files if (table := _table(folder, name)) is not None}
    if len(tables) != 1:
        words = ", ".join(tables) or "none has images, annotations and categories"
        raise UsageError(
            f"{len(tables)} of the .json files are lists of boxes as COCO has them",
            where=f"{folder.path}: {words}",
            fix="name one: --evaluate FOLDER/annotations/instances_val2017.json",
        )
    ((_, table),) = tables.items()
    boxes: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in table["annotations"]:
        if row.get("bbox"):
            boxes[row["image_id"]].append(row)
    places = {name: name for name in images} | {PurePosixPath(name).name: name for name in images}
    known = {}
    for image in table["images"]:
        name = places.get(image["file_name"]) or places.get(PurePosixPath(image["file_name"]).name)
        if name is not None:
            known[name] = _coco_rows(boxes[image["id"]])
    if not known:
        raise ReadError("none of the listed images is there", where=str(folder.path), fix="put them beside the .json")
    return known, tuple(sorted(row["id"] for row in table["categories"]))


def _table(folder: Folder, name: str) -> dict[str, Any] | None:
    try:
        table = json.loads(folder.read(name))
    except (ValueError, RecursionError):
        return None
    wanted = ("images", "annotations", "categories")
    return table if isinstance(table, dict) and all(isinstance(table.get(key), list) for key in wanted) else None


def _coco_rows(rows: Sequence[Mapping[str, Any]]) -> Callable[[int, int], Objects]:
    def objects(_height: int, _width: int) -> Objects:
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in rows)]
        return _objects(boxes, [row["category_id"] for row in rows], [bool(row.get("iscrowd")) for row in rows])

    return objects


# ---- YOLO


def _yolo(folder: Folder, rows: Mapping[str, str], images: Sequence[str]) -> tuple[Known, tuple[int, ...]]:
    """`class centre-x centre-y width height` a line, in shares of the image; an image without a file shows nothing.

    Of images elsewhere than those with files nothing is known: they are left out.
    """
    parents = {PurePosixPath(name).parent for name in rows}
    known = {
        name: _yolo_rows(folder, rows.get(name), [] if name not in rows else folder.lines(rows[name]))
        for name in images
        if PurePosixPath(name).parent in parents
    }
    lists = [name for name in folder.names if PurePosixPath(name).name in _CLASS_LISTS]
    most = max((int(line.split()[0]) for file in rows.values() for line in folder.lines(file)), default=0) + 1
    return known, tuple(range(max(most, len(folder.lines(lists[0])) if lists else 0)))


def _yolo_rows(folder: Folder, file: str | None, lines: Sequence[str]) -> Callable[[int, int], Objects]:
    try:
        shares = np.array([_yolo_row(line) for line in lines], float).reshape(-1, 5)
    except ValueError as error:
        raise ReadError("the boxes cannot be read", where=f"{folder.path}, {file}: {error}", fix=_LAYOUT) from error

    def objects(height: int, width: int) -> Objects:
        centre, half = shares[:, 1:3], shares[:, 3:5] / 2
        boxes = np.concatenate([centre - half, centre + half], 1) * [width, height, width, height]
        return Objects(boxes, shares[:, 0].astype(np.int64), np.zeros(len(shares), bool))

    return objects


def _yolo_row(line: str) -> tuple[float, ...]:
    """Class and box of a line: five numbers, maybe a sixth, how sure; or a class and the points of an outline."""
    words = [float(word) for word in line.split()]
    if len(words) < 5 or words[0] != int(words[0]) or words[0] < 0 or not np.isfinite(words).all():
        raise ValueError(f"'{line}' is not: class x y width height")
    if len(words) < 7:
        return tuple(words[:5])
    x, y = words[1::2], words[2::2]
    return words[0], (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)


# ---- Pascal VOC


def _voc(folder: Folder, files: Mapping[str, str], images: Sequence[str]) -> tuple[Known, tuple[int, ...]]:
    """One XML an image. Classes are numbered as a list of them (classes.txt) says, else in alphabetical order."""
    trees = {image: _tree(folder, files[image]) for image in images}
    lists = [name for name in folder.names if PurePosixPath(name).name in _CLASS_LISTS]
    names = sorted({str(item.findtext("name")) for tree in trees.values() for item in tree.iter("object")})
    order = folder.lines(lists[0]) if lists else names
    missing = set(names) - set(order)
    if missing:
        raise ReadError(
            f"'{min(missing)}' is not in the list of classes", where=f"{folder.path}, {lists[0]}", fix="add it"
        )
    numbers = {name: number for number, name in enumerate(order)}
    return {image: _voc_rows(tree, numbers, f"{folder.path}, {files[image]}") for image, tree in trees.items()}, tuple(
        range(len(order))
    )


def _tree(folder: Folder, name: str) -> ET.Element:
    text, where = folder.read(name), f"{folder.path}, {name}"
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ReadError("the boxes have a document type, which none needs", where=where, fix="remove it")
    try:
        root = ET.fromstring(text)  # noqa: S314 - entities, which may expand without end, are refused above
    except (ET.ParseError, ValueError) as error:
        raise ReadError("the boxes cannot be read", where=f"{where}: {error}", fix=_LAYOUT) from error
    return root


def _voc_rows(tree: ET.Element, numbers: Mapping[str, int], where: str) -> Callable[[int, int], Objects]:
    items = list(tree.iter("object"))
    try:
        corners = [[float(str(i.findtext(f"bndbox/{k}"))) for k in ("xmin", "ymin", "xmax", "ymax")] for i in items]
    except ValueError as error:
        raise ReadError("the boxes cannot be read", where=f"{where}: {error}", fix=_LAYOUT) from error
    classes = [numbers[str(item.findtext("name"))] for item in items]
    boxes = [(x1 - 1, y1 - 1, x2, y2) for x1, y1, x2, y2 in corners]  # pixels are counted from 1, both ends included
    found = _objects(boxes, classes, [item.findtext("difficult") == "1" for item in items])
    return lambda _height, _width: found
