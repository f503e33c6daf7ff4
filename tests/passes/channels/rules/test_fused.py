"""Models that ONNX Runtime has optimised and saved lose as many channels as before, and are proven."""

from __future__ import annotations

import onnx
import pytest
from onnx_prune import Budget, prune
from onnx_prune.runtime.analysis import analyse

CONVOLUTIONS = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 8, 8] x) => (float[1, 4] y)
    <float[8, 3, 3, 3] w1, float[8] b1, float[8, 8, 3, 3] w2, float[8] b2, float[8, 4] w3> {
      a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
      r = Relu (a)
      b = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
      s = Add (b, r)
      t = Relu (s)
      p = GlobalAveragePool (t)
      f = Flatten (p)
      y = MatMul (f, w3)
    }
    """
FEED_FORWARD = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 5, 8] x) => (float[1, 5, 8] y)
    <float[8, 32] w1, float[32] b1, float[32, 8] w2, float[8] b2, float[8] g1, float[8] o1,
     float root = {1.4142135}, float one = {1.0}, float half = {0.5}> {
      a = MatMul (x, w1)
      h = Add (a, b1)
      d = Div (h, root)
      e = Erf (d)
      f = Add (e, one)
      m = Mul (h, f)
      n = Mul (m, half)
      c = MatMul (n, w2)
      b = Add (c, b2)
      r = Add (b, x)
      y = LayerNormalization (r, g1, o1)
    }
    """


def optimised(model, folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "fused.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "fused.onnx")


@pytest.mark.parametrize(
    ("text", "fused"),
    [(CONVOLUTIONS, {"FusedConv"}), (FEED_FORWARD, {"Gelu", "SkipLayerNormalization"})],
    ids=["convolutions", "feed forward"],
)
def test_an_optimised_model_has_the_groups_of_the_plain_one(text, fused, graphs, tmp_path):
    model = graphs.parse(text)
    found = optimised(model, tmp_path)
    assert fused <= {node.op_type for node in found.graph.node}
    before, after = (analyse(m).groups for m in (model, found))
    assert sorted(g.units for g in after.free) == sorted(g.units for g in before.free)
    result = prune(found, budget=Budget(macs=0.6), calibration="none", measure=False)
    assert result.report.proof < 1e-5
    assert result.plan.macs[1] <= 0.6 * result.plan.macs[0]
