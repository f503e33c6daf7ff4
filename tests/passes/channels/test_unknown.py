"""What is not known stays, with a reason, and pruning goes on everywhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model


def network(body, opsets='"": 17', weights=""):
    """A convolution (a) that meets the body, and before and behind it ones (b, d) that do not."""
    return f"""
        <ir_version: 8, opset_import: [{opsets}]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[5, 3, 1, 1] w0, float[6, 5, 1, 1] w1, float[7, 6, 1, 1] w2, float[2, 7, 1, 1] w3{weights}> {{
          b = Conv (x, w0)
          a = Conv (b, w1)
          {body}
          d = Conv (z, w2)
          y = Conv (d, w3)
        }}
        """


UNRUNNABLE = {
    "a custom domain": (network("z = acme.Twist (a)", '"": 17, "acme": 1'), "operator acme.Twist has no rule"),
    "an operator without a rule": (network("z = Lift (a)"), "operator Lift has no rule"),
}
HIDING = {
    "indices that the data decide": (
        network(
            "g = GlobalMaxPool (a)\n s = Squeeze (g, all)\n n = NonZero (s)\n m = Transpose (n)\n"
            "h = Squeeze (m, one)\n p = Gather <axis = 1> (a, h)\n r = ReduceSum (p, one)\n z = Mul (a, r)",
            weights=", int64[3] all = {0, 2, 3}, int64[1] one = {1}",
        ),
        ("a shape at NonZero cannot be known", "NonZero counts its entries"),
    ),
    "a sum over indices": (
        network("n = NonZero (a)\n c = Cast <to = 1> (n)\n r = ReduceSum <keepdims = 0> (c)\n z = Mul (a, r)"),
        ("a shape at NonZero cannot be known", "NonZero counts its entries"),
    ),
    "a reshape to a computed shape": (
        network(
            "m = ReduceMax <keepdims = 0> (x)\n f = Sub (m, m)\n i = Cast <to = 7> (f)\n t = Add (shape, i)\n"
            "p = Reshape (a, t)\n z = Reshape (p, shape)",
            weights=", int64[4] shape = {1, 6, 4, 4}",
        ),
        ("a shape at Reshape cannot be known", "Reshape to a computed shape"),
    ),
    "a slice at computed bounds": (
        network(
            "m = ReduceMax <keepdims = 0> (x)\n f = Sub (m, m)\n i = Cast <to = 7> (f)\n s = Add (zero, i)\n"
            "p = Slice (a, s, end, one)\n r = ReduceMax <keepdims = 1> (p)\n z = Mul (a, r)",
            weights=", int64[1] zero = {0}, int64[1] end = {6}, int64[1] one = {1}",
        ),
        ("a shape at Slice cannot be known", "Slice cuts at bounds that are computed"),
    ),
    "a mix of the channels": (
        network("z = Softmax <axis = 1> (a)"),
        ("Softmax mixes the entries of its axis", "Softmax mixes the entries of its axis"),
    ),
}


@pytest.mark.parametrize(("text", "reason"), UNRUNNABLE.values(), ids=UNRUNNABLE)
def test_an_unknown_operator_pins_and_the_rest_goes(text, reason, graphs):
    """What it returns is known where the model declares it, else what follows stays too."""
    model = graphs.parse(text)
    groups = graphs.groups_of(model, sizes={})
    assert {g.units for g in groups.free} == {5}
    assert reason in next(g.pinned for g in groups.groups if g.units == 6)
    declared = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 6, 4, 4])
    model.graph.value_info.append(declared)
    groups = graphs.groups_of(model, sizes={})
    assert {g.units for g in groups.free} == {5, 7}
    assert reason in next(g.pinned for g in groups.groups if g.units == 6)


@pytest.mark.parametrize("run", [False, True], ids=["inferred", "from a run"])
@pytest.mark.parametrize(("text", "reasons"), HIDING.values(), ids=HIDING)
def test_what_only_the_data_decide_pins_and_the_rest_is_proven(text, reasons, run, graphs):
    model = graphs.parse(text)
    groups = graphs.groups_of(model) if run else graphs.groups_of(model, sizes={})
    assert {g.units for g in groups.free} == {5, 7}
    assert reasons[run] in next(g.pinned for g in groups.groups if g.units == 6)
    removed = groups.removed_labels({g.name: range(1, g.units, 2) for g in groups.free})
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    onnx.checker.check_model(cut, full_check=True)
    feeds = graphs.random_feeds(model)
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6
    assert {tuple(t.dims) for t in cut.graph.initializer} >= {(3, 3, 1, 1), (6, 3, 1, 1), (4, 6, 1, 1)}


def test_a_form_that_the_rule_does_not_cover_pins(graphs):
    """Einsum over a diagonal."""
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[4, 4] x) => (float[4, 3] y)
        <float[4, 5] w0, float[5, 4] w1, float[4, 6] w2, float[6, 3] w3> {
          b = MatMul (x, w0)
          a = MatMul (b, w1)
          t = Einsum <equation = "ii->i"> (a)
          s = Mul (x, t)
          d = MatMul (s, w2)
          y = MatMul (d, w3)
        }
        """
    groups = graphs.groups_of(graphs.parse(text))
    assert {g.units for g in groups.free} == {5, 6}
    assert any("Einsum" in (g.pinned or "") for g in groups.groups)


def test_an_unknown_operator_keeps_its_own_constants(graphs):
    text = network("z = acme.Twist (a, v)", '"": 17, "acme": 1', ", float[6] v")
    model = graphs.parse(text)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 6, 4, 4]))
    groups = graphs.groups_of(model, sizes={})
    removed = groups.removed_labels({g.name: range(1, g.units, 2) for g in groups.free})
    cut = to_model(apply_removal(groups.labelled, removed))
    before, after = ({t.name: t for t in m.graph.initializer} for m in (model, cut))
    assert after["v"] == before["v"]
    assert after["w1"].dims == [6, 3, 1, 1]
    assert np.prod(after["w2"].dims) == 4 * 6
