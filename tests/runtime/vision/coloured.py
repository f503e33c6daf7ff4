"""Images of coloured squares with their masks and boxes, and networks that find them by their colours."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE, CELL, COUNT = 64, 8, 6
CLASSES = 3  # of objects; masks have 0 for the background
_COLOURS = np.array([[0, 0, 0], [230, 30, 30], [30, 230, 30], [30, 30, 230]], np.uint8)


def drawn_cells():
    """Class of each cell, (images, 8, 8); 0 is the background."""
    rng = np.random.default_rng(0)
    side = SIDE // CELL
    return np.where(rng.random((COUNT, side, side)) < 0.2, rng.integers(1, CLASSES + 1, (COUNT, side, side)), 0)


CELLS = drawn_cells()
MASKS = CELLS.repeat(CELL, 1).repeat(CELL, 2)  # class of each pixel, (images, 64, 64)


def pixels(mask):
    """The image of a mask."""
    return _COLOURS[mask]


def objects(grid):
    """(class from 0, x, y) in pixels of each cell that has one."""
    return [(int(grid[y, x]) - 1, int(x) * CELL, int(y) * CELL) for y, x in np.argwhere(grid)]


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(image, np.uint8)).save(path)


def write_images(folder, ending=".png"):
    for number, mask in enumerate(MASKS):
        save(pixels(mask), folder / f"{number:03}{ending}")


def colour_network(*, detector=False, batch="n"):
    """Conv, Relu, Conv: 16 hidden channels, of which 12 say what 4 say already; classes by their colours, exactly.

    A segmenter's output is (n, 4, 64, 64); a detector's (1, 4 + 3, 64): boxes of all cells, and their scores.
    """
    rng = np.random.default_rng(1)
    colours = (_COLOURS / 255.0).astype(np.float64)
    hidden = np.concatenate([np.eye(3), rng.normal(size=(13, 3))])
    bias = rng.uniform(0.5, 1, 16) + np.maximum(-(colours @ hidden.T).min(0), 0)  # above zero: linear for these colours
    responses = np.concatenate([np.maximum(colours @ hidden.T + bias, 0), np.ones((4, 1))], 1)
    last = np.linalg.pinv(responses) @ (4 * np.eye(4) - 2)
    weights = {
        "hidden.weight": hidden.reshape(16, 3, 1, 1),
        "hidden.bias": bias,
        "last.weight": last[:-1].T.reshape(4, 16, 1, 1),
        "last.bias": last[-1],
    }
    nodes = [
        helper.make_node("Conv", ["input", "hidden.weight", "hidden.bias"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "last.weight", "last.bias"], ["scores"], name="last"),
    ]
    constants = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()]
    shape, output = [batch, 4, SIDE, SIDE], "scores"
    if detector:
        side = SIDE // CELL
        y, x = np.mgrid[:side, :side] * CELL + CELL / 2
        boxes = np.stack([x, y, np.full_like(x, CELL), np.full_like(x, CELL)]).reshape(1, 4, -1)
        nodes += [
            helper.make_node("AveragePool", ["scores"], ["pooled"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
            helper.make_node("Sigmoid", ["pooled"], ["shares"]),
            helper.make_node("Slice", ["shares", "one", "four", "one"], ["classes"]),
            helper.make_node("Reshape", ["classes", "flat"], ["rows"]),
            helper.make_node("Concat", ["boxes", "rows"], ["found"], axis=1),
        ]
        constants += [
            numpy_helper.from_array(boxes.astype(np.float32), "boxes"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array([4], np.int64), "four"),
            numpy_helper.from_array(np.array([1, 3, side * side], np.int64), "flat"),
        ]
        shape, output, batch = [1, 4 + CLASSES, side * side], "found", 1
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def blinder(model, colour):
    """The same where one class of colours is never seen."""
    worse = onnx.ModelProto()
    worse.CopyFrom(model)
    tensor = next(t for t in worse.graph.initializer if t.name == "last.bias")
    bias = numpy_helper.to_array(tensor).copy()
    bias[colour] -= 100
    tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    return worse
