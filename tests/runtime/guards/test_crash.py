"""ONNX Runtime's optimiser may end the process on a model in half precision: it is tried beside, and left out."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_prune.runtime.guards import crash
from onnx_prune.runtime.session import open_session


def network(dtype=np.float16, count=5):
    """Products in a row, of float16 or float32."""
    nodes = [helper.make_node("MatMul", [f"t{i}", "w"], [f"t{i + 1}"]) for i in range(count)]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    held = [numpy_helper.from_array(np.eye(4, dtype=dtype), "w")]
    ends = [helper.make_tensor_value_info(name, kind, ["n", 4]) for name in ("t0", f"t{count}")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def attempts(monkeypatch):
    """No model was tried before; counts those that are."""
    monkeypatch.setattr(crash, "_tried", {})
    seen = []
    run = crash._crashes
    monkeypatch.setattr(crash, "_crashes", lambda *a: seen.append(a) or run(*a))
    return seen


def test_a_model_in_half_precision_is_tried_once_for_its_operators(attempts, tmp_path):
    open_session(network())
    open_session(network(count=6))
    onnx.save(network(), tmp_path / "half.onnx")
    open_session(tmp_path / "half.onnx")
    assert len(attempts) == 1


def test_others_are_not_tried(attempts):
    open_session(network(np.float32))
    open_session(network(count=2))
    open_session(network(), optimise=False)
    assert not attempts


@pytest.mark.skipif(sys.platform == "win32", reason="a process ends in another way there")
def test_what_crashes_is_opened_without_the_layout(attempts, monkeypatch):
    monkeypatch.setattr(crash, "_OPEN", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    model = network()
    assert crash.left_out(model, model.SerializeToString(), None) == [crash.LAYOUT]
    assert len(attempts) == 1
    x = np.ones((2, 4), np.float16)
    np.testing.assert_array_equal(open_session(model).run({"t0": x})["t5"], x)
    assert crash.left_out(network(count=7), b"", None) == [crash.LAYOUT]  # all that is timed is optimised alike
    assert crash.left_out(network(np.float32), b"", None) == []
