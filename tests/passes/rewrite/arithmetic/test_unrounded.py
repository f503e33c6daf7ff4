"""Quantised activations without rounding: the same limits, within half a step; what cannot be told stays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.rewrite.arithmetic.unrounded import without_rounding

PAIR = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[3, 4] x) => (float[3, 4] y) <float s = {0.1}, int8 z = {-3}> {
      q = QuantizeLinear (x, s, z)
      y = DequantizeLinear (q, s, z)
    }
    """


@pytest.mark.parametrize(("kind", "zero"), [("int8", -3), ("uint8", 128), ("int8", 0)])
def test_what_is_left_are_the_limits(graphs, kind, zero):
    model = graphs.parse(PAIR.replace("int8 z = {-3}", f"{kind} z = {{{zero}}}"))
    changed = without_rounding(model)
    assert [node.op_type for node in changed.graph.node] == ["Max", "Min"]
    feeds = {"x": np.linspace(-40, 40, 12, dtype=np.float32).reshape(3, 4)}
    (a,), (b,) = graphs.ort(model, feeds), graphs.ort(changed, feeds)
    far = np.abs(feeds["x"]) > 30
    assert far.any()
    np.testing.assert_allclose(b[far], a[far], rtol=1e-6)
    assert np.abs(a - b).max() <= 0.05 + 1e-6
    inside = feeds["x"][np.abs(feeds["x"]) < 10]
    assert np.isin(inside, b).all()


def test_a_zero_point_that_is_left_out_is_that_of_bytes(graphs):
    model = graphs.parse(PAIR.replace(", int8 z = {-3}", "").replace(", z)", ")"))
    feeds = {"x": np.array([[-1, 0, 1, 2], [3, 4, 5, 6], [7, 20, 25, 30]], np.float32)}
    (a,), (b,) = graphs.ort(model, feeds), graphs.ort(without_rounding(model), feeds)
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("float s = {0.1}, int8 z = {-3}", "float[4] s = {1, 2, 3, 4}, int8[4] z = {0, 0, 0, 0}"),  # a scale a channel
        ("(float[3, 4] y)", "(float[3, 4] y, int8[3, 4] q)"),  # the integers are an output
        ("y = DequantizeLinear (q, s, z)", "r = Relu (q)\n y = DequantizeLinear (r, s, z)"),
        ("y = DequantizeLinear (q, s, z)", "y = DequantizeLinear (q, s)"),  # another zero point
    ],
)
def test_other_pairs_stay(graphs, old, new):
    model = graphs.parse(PAIR.replace(old, new))
    assert without_rounding(model) is model
