"""Concrete shapes, checked against the tensors themselves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.errors import ReadError
from onnx_prune.runtime import session as session_module
from onnx_prune.runtime.shapes import tensor_shapes

CONV = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 2, h, w] x) => (float[N, ?] y)
{ a = Conv<strides=[2, 2]>(x, W)  b, unused = MaxPool<kernel_shape=[2, 2]>(a)  y = Flatten(b)  dead = Relu(a) }
"""


@pytest.fixture
def conv() -> onnx.ModelProto:
    model = parser.parse_model(CONV)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((5, 2, 3, 3), np.float32), "W"))
    return model


EXPECTED = {
    "x": (3, 2, 11, 9),
    "W": (5, 2, 3, 3),
    "a": (3, 5, 5, 4),
    "b": (3, 5, 4, 3),
    "unused": (3, 5, 4, 3),
    "y": (3, 60),
    "dead": (3, 5, 5, 4),
}


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_every_tensor_of_the_main_graph_has_its_shape(monkeypatch, conv, tmp_path, limit):
    monkeypatch.setattr(session_module, "SPILL_BYTES", limit)
    before = conv.SerializeToString()
    feeds = {"x": np.zeros((3, 2, 11, 9), np.float32)}
    assert tensor_shapes(conv, feeds) == EXPECTED
    assert conv.SerializeToString() == before
    onnx.save(conv, tmp_path / "model.onnx")
    assert tensor_shapes(tmp_path / "model.onnx", feeds) == EXPECTED


def test_other_input_has_other_shapes(conv):
    assert tensor_shapes(conv, {"x": np.zeros((1, 2, 11, 9), np.float32)})["a"] == (1, 5, 5, 4)


def test_what_is_no_tensor_is_left_out():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[4, 2] x) => (seq(float[?, 2]) parts)
    { parts = SplitToSequence(x)  one = Constant<value_int=1>()  second = SequenceAt(parts, one)  z = Relu(second) }
    """
    shapes = tensor_shapes(parser.parse_model(text), {"x": np.zeros((4, 2), np.float32)})
    assert shapes == {"x": (4, 2), "one": (), "second": (1, 2), "z": (1, 2)}


def test_a_branch_inside_the_graph_is_one_node():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (bool c, float[2, 3] x) => (float[?, ?] y) {
        y = If (c) <then_branch = t () => (float[2, 3] p) { p = Relu(x) },
                    else_branch = e () => (float[3, 2] q) { q = Transpose(x) }>
    }
    """
    model = parser.parse_model(text)
    x = np.zeros((2, 3), np.float32)
    assert tensor_shapes(model, {"c": np.array(True), "x": x})["y"] == (2, 3)
    assert tensor_shapes(model, {"c": np.array(False), "x": x})["y"] == (3, 2)


def test_input_that_does_not_fit_is_a_read_error(conv):
    with pytest.raises(ReadError, match="cannot run"):
        tensor_shapes(conv, {"x": np.zeros((1, 3, 11, 9), np.float32)})
