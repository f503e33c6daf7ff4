"""A group of which no input shows anything is kept whole, and others go in its place."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.errors import BudgetError, ProofError
from onnx_prune.pipeline.prune import apply, inspect, prune
from onnx_prune.runtime.proof import inside

# What stands between two convolutions, and hides from the second one what the first has made.
BLIND = {
    "the logarithm of negative numbers": "p = Abs (a)\n q = Neg (p)\n b = Log (q)",
    "the root of negative numbers": "p = Abs (a)\n q = Neg (p)\n b = Sqrt (q)",
    "a division by zero": "p = Mul (a, nought)\n b = Div (p, p)",
    "a saturated gate": "p = Abs (a)\n q = Add (p, huge)\n b = HardSigmoid (q)",
    "a threshold never met": "p = Greater (a, huge)\n q = Cast <to = 1> (p)\n b = Mul (q, a)",
    "an overflow": "p = Abs (a)\n q = Add (p, huge)\n b = Exp (q)",
}


def network(middle):
    """conv w0, `middle` from a to b, conv w1, beside it conv w2, relu, conv w3; both joined, pooled and classified."""
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 3, 8, 8] x) => (float[n, 5] y)
    {{
      a = Conv <pads = [1, 1, 1, 1]> (x, w0)
      {middle}
      c = Conv (b, w1)
      d = Conv <pads = [1, 1, 1, 1]> (x, w2)
      e = Relu (d)
      f = Conv (e, w3)
      j = Concat <axis = 1> (c, f)
      k = ReduceMean <axes = [2, 3], keepdims = 0> (j)
      y = MatMul (k, w4)
    }}""")
    shapes = {"w0": (16, 3, 3, 3), "w1": (4, 16, 1, 1), "w2": (32, 3, 3, 3), "w3": (8, 32, 1, 1), "w4": (12, 5)}
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal(shape) * 0.4).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"nought": np.float32(0), "huge": np.float32(1e4), "twenty": np.float32(20)}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items() if k in read)
    return model


def rows(result):
    return {group.name: group for group in result.report.groups}


@pytest.mark.parametrize("kind", BLIND)
def test_a_group_behind_which_nothing_can_be_seen_is_kept_whole_with_that_reason(kind):
    result = prune(network(BLIND[kind]), budget="70%", calibration="none", measure=False)
    blind, seen = rows(result)["a"], rows(result)["d"]
    assert blind.after == blind.before == 16
    assert "nothing shows" in blind.pinned
    assert "'c'" in blind.pinned
    assert seen.after < seen.before
    assert result.report.macs[1] <= 0.7 * result.report.macs[0]


def test_where_nothing_else_is_left_that_is_said():
    with pytest.raises(BudgetError, match="cannot be met"):
        prune(network(BLIND["an overflow"]), calibration="none", measure=False, exclude="d|f|c")


def test_calibration_data_show_what_noise_does_not():
    """Data of large numbers get over the bias: the group is seen, and cut."""
    model = network("p = Sub (a, huge)\n b = Relu (p)")
    data = {"x": np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32) * 1e5}
    blind = prune(model, budget="70%", calibration="none", measure=False)
    shown = prune(model, budget="70%", calibration=data, allocation="uniform", reconstruct="none", measure=False)
    assert rows(blind)["a"].after == 16
    assert rows(shown)["a"].after < 16
    with pytest.raises(ProofError, match="nothing shows whether the cut of 'a' is right"):
        apply(model, shown.plan, measure=False)


def test_other_inputs_show_what_the_first_do_not(monkeypatch):
    """The gate opens for large numbers alone."""
    model = network("p = ReduceMax <keepdims = 0> (x)\n r = Sub (p, twenty)\n q = Relu (r)\n b = Mul (a, q)")
    assert rows(prune(model, calibration="none", measure=False, budget="70%"))["a"].after < 16
    monkeypatch.setattr(inside, "further", lambda *_: [])
    assert rows(prune(model, calibration="none", measure=False, budget="70%"))["a"].after == 16


def test_all_that_a_plain_network_cuts_is_seen():
    result = prune(network("b = Relu (a)"), calibration="none", measure=False)
    seen, cut = result.report.compared
    assert seen == cut
    assert not [group for group in result.report.groups if group.pinned and "shows" in group.pinned]
    assert {group.name for group in inspect(network("b = Relu (a)")).groups.free} >= {"a", "d"}


def test_positions_that_are_others_at_another_size_are_seen_all_the_same():
    """GroupNormalization of free height and width, as torch writes it: channels and positions in one axis."""
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 3, h, w] x) => (float[n, 5, h, w] y)
    <int64[3] grouped = {0, 4, -1}, float[4] ones = {1, 1, 1, 1}, float[4] noughts = {0, 0, 0, 0}>
    {
      a = Conv <pads = [1, 1, 1, 1]> (x, w0)
      r = Reshape (a, grouped)
      m = InstanceNormalization (r, ones, noughts)
      s = Shape (a)
      b = Reshape (m, s)
      y = Conv (b, w1)
    }""")
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (16, 3, 3, 3), "w1": (5, 16, 1, 1)}.items():
        weight = (rng.standard_normal(shape) * 0.4).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    result = prune(model, calibration="none", measure=False, align=1)
    assert result.report.compared[0] == result.report.compared[1] > 3
    assert result.report.macs[1] <= 0.5 * result.report.macs[0]


def attention():
    """One node with its projections: what queries and keys have in common no tensor carries."""
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[n, 5, 6] x) => (float[n, 5, 3] y)
    {
      h = MatMul (x, w0)
      r = Relu (h)
      a = com.microsoft.Attention <num_heads = 2> (r, wqkv, bqkv)
      y = MatMul (a, w1)
    }""")
    rng = np.random.default_rng(0)
    shapes = {"w0": (6, 16), "wqkv": (16, 48), "bqkv": (48,), "w1": (16, 3)}
    for name, shape in shapes.items():
        weight = (rng.standard_normal(shape) * 0.4).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    return model


def test_channels_inside_one_node_are_seen_by_what_it_makes():
    result = prune(attention(), calibration="none", measure=False, align=1)
    assert not [group for group in result.report.groups if group.pinned and "shows" in group.pinned]
    queries = next(group for group in result.report.groups if group.name == "a")
    assert queries.after < queries.before


def test_a_wrong_cut_of_them_is_refused(monkeypatch):
    right = Cut.compress

    def swapped(cut, constant, values):
        """The first two columns of queries change places; keys and values stay."""
        left = right(cut, constant, values)
        order = [1, 0, *range(2, left.shape[1])] if constant.name == "wqkv" else slice(None)
        return left[..., order]

    monkeypatch.setattr(Cut, "compress", swapped)
    with pytest.raises(ProofError):
        prune(attention(), calibration="none", measure=False, align=1)
