"""Rounding errors are those that a run might have: as large as those of a long sum, and of a shut gate."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.graph.spill import spill
from onnx_prune.runtime.proof.rounded import rounded
from onnx_prune.runtime.session import open_session

LONG = 4096


def product(length=LONG):
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[8, {length}] x) => (float[8, 64] y){{ y = Gemm <transB = 1> (x, w) }}
    """)
    values = np.random.default_rng(0).standard_normal((64, length), dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    return model, {"x": np.random.default_rng(1).standard_normal((8, length), dtype=np.float32)}


@pytest.mark.parametrize("in_file", [False, True])
def test_a_long_sum_is_moved_by_what_another_order_of_its_terms_moves_it(tmp_path, in_file):
    model, feeds = product()
    weight = numpy_helper.to_array(model.graph.initializer[0])
    total = np.zeros((8, 64), np.float32)
    for term in range(LONG):  # one after another, as no library adds them
        total += feeds["x"][:, term, None] * weight[None, :, term]
    exact = feeds["x"].astype(np.float64) @ weight.T.astype(np.float64)
    error = np.abs(total - exact).mean()
    given = spill(model, tmp_path, None) if in_file else model
    moved = rounded(given, np.random.default_rng(2))
    (found,) = open_session(moved, base_dir=tmp_path).run(feeds).values()
    assert 0.2 * error < np.abs(found - exact).mean() < 20 * error


def test_a_shut_gate_is_moved_by_a_step_of_one():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y) <float[1] one = {1}> {
      s = Sigmoid (x)
      y = Mul (s, one)
    }
    """)
    feeds = {"x": np.array([-40, -20, 0, 20], np.float32)}
    (before,) = open_session(model).run(feeds).values()
    (after,) = open_session(rounded(model, np.random.default_rng(0))).run(feeds).values()
    assert np.allclose(np.abs(after - before)[:2], 2.0**-24, rtol=0.01)
    assert rounded(model, np.random.default_rng(0)) == rounded(model, np.random.default_rng(0))


def test_graphs_of_other_floats_keep_their_nodes():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]> g (double[4] x) => (double[4] y) <float[1] one = {1}> { y = Sigmoid (x) }
    """)
    assert len(rounded(model, np.random.default_rng(0)).graph.node) == 1
