"""What may go entirely in the families of networks, and that the rest computes what the silenced original does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.channels.vanish.vanishing import Vanishing
from onnx_prune.passes.graph.export import infer_shapes, to_model

# name: (nodes from x [n, 4, 6, 6] to z [n, c, 6, 6] with weights drawn, their shapes, {group that may go: what goes},
# groups that may not).
FAMILIES = {
    "residual": (
        ("a = Conv <pads = [1, 1, 1, 1]> (s, w1, b1)\n r = Relu (a)\n"
        "c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)\n t = Add (s, c)\n z = Relu (t)"),
        {"w1": (6, 4, 3, 3), "b1": (6,), "w2": (4, 6, 3, 3), "b2": (4,)},
        {"w1": {"a", "c"}},
        {"w0"},
    ),
    "residual with normalisation": (
        ("a = Conv <pads = [1, 1, 1, 1]> (s, w1)\n n = BatchNormalization (a, p1, p2, p3, v1)\n r = Relu (n)\n"
        "c = Conv <pads = [1, 1, 1, 1]> (r, w2)\n m = BatchNormalization (c, q1, q2, q3, v2)\n z = Add (m, s)"),
        {"w1": (6, 4, 3, 3), **dict.fromkeys(("p1", "p2", "p3", "v1"), (6,)), "w2": (4, 6, 3, 3),
         **dict.fromkeys(("q1", "q2", "q3", "v2"), (4,))},
        {"w1": {"a", "n", "c", "m"}},
        {"w0"},
    ),
    "pre-activation": (
        ("n = BatchNormalization (s, p1, p2, p3, v1)\n r = Relu (n)\n a = Conv <pads = [1, 1, 1, 1]> (r, w1)\n"
        "q = Relu (a)\n c = Conv <pads = [1, 1, 1, 1]> (q, w2)\n z = Add (s, c)"),
        {**dict.fromkeys(("p1", "p2", "p3", "v1"), (4,)), "w1": (6, 4, 3, 3), "w2": (4, 6, 3, 3)},
        {"w1": {"n", "r", "a", "c"}},
        {"w0"},
    ),
    "bottleneck": (
        ("a = Conv (s, w1, b1)\n r = Relu (a)\n c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)\n q = Relu (c)\n"
        "d = Conv (q, w3, b3)\n z = Add (s, d)"),
        {"w1": (3, 4, 1, 1), "b1": (3,), "w2": (5, 3, 3, 3), "b2": (5,), "w3": (4, 5, 1, 1), "b3": (4,)},
        {"w1": {"a", "c", "d"}, "w2": {"a", "c", "d"}},
        {"w0"},
    ),
    "depthwise": (
        ("a = Conv (s, w1, b1)\n r = Clip (a, lo, hi)\n c = Conv <pads = [1, 1, 1, 1], group = 8> (r, wd, bd)\n"
        "d = Conv (c, w3)\n z = Add (s, d)"),
        {"w1": (8, 4, 1, 1), "b1": (8,), "wd": (8, 1, 3, 3), "bd": (8,), "w3": (4, 8, 1, 1), "lo": (), "hi": ()},
        {"w1": {"a", "c", "d"}},
        {"w0"},
    ),
    "squeeze and excite": (
        ("p = GlobalAveragePool (s)\n a = Conv (p, w1, b1)\n r = Relu (a)\n c = Conv (r, w2, b2)\n"
        "g = Sigmoid (c)\n z = Mul (s, g)"),
        {"w1": (3, 4, 1, 1), "b1": (3,), "w2": (4, 3, 1, 1), "b2": (4,)},
        {"w1": {"p", "a", "c", "g"}},
        {"w0"},
    ),
    "inception": (
        ("a = Conv (s, w1, b1)\n c = Conv <pads = [1, 1, 1, 1]> (a, w2, b2)\n d = Conv (s, w3, b3)\n"
        "j = Concat <axis = 1> (c, d, s)\n z = Relu (j)"),
        {"w1": (3, 4, 1, 1), "b1": (3,), "w2": (5, 3, 3, 3), "b2": (5,), "w3": (2, 4, 1, 1), "b3": (2,)},
        {"w2": {"a", "c"}, "w3": {"d"}},
        {"w0", "w1"},
    ),
    "dense": (
        ("a = Conv <pads = [1, 1, 1, 1]> (s, w1)\n j = Concat <axis = 1> (s, a)\n"
        "c = Conv <pads = [1, 1, 1, 1]> (j, w2)\n z = Concat <axis = 1> (j, c)"),
        {"w1": (3, 4, 3, 3), "w2": (3, 7, 3, 3)},
        {"w1": {"a"}, "w2": {"c"}},
        {"w0"},
    ),
    "U-Net": (
        ("d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s)\n a = Conv <pads = [1, 1, 1, 1]> (d, w1, b1)\n"
        "r = Relu (a)\n u = ConvTranspose <strides = [2, 2]> (r, w2, b2)\n z = Concat <axis = 1> (u, s)"),
        {"w1": (6, 4, 3, 3), "b1": (6,), "w2": (6, 5, 2, 2), "b2": (5,)},
        {"w2": {"d", "a", "u"}},
        {"w0", "w1"},
    ),
    "perceptron": (
        ("i = Transpose <perm = [0, 2, 3, 1]> (s)\n a = MatMul (i, w1)\n h = Add (b1, a)\n r = Tanh (h)\n"
        "c = MatMul (r, w2)\n k = Add (b2, c)\n m = Mul (k, gamma)\n o = Add (i, m)\n"
        "z = Transpose <perm = [0, 3, 1, 2]> (o)"),
        {"w1": (4, 9), "b1": (9,), "w2": (9, 4), "b2": (4,), "gamma": (4,)},
        {"w1": {"a", "h", "c", "k", "m"}},
        {"w0"},
    ),
}  # fmt: skip


def build(graphs, family, *, double):
    nodes, shapes, *_ = FAMILIES[family]
    shapes = {"w0": (4, 3, 3, 3), "b0": (4,), "wz": (2, channels(family), 3, 3), **shapes}
    declared = ", ".join(f"float[{', '.join(map(str, s))}] {n}" if s else f"float {n}" for n, s in shapes.items())
    model = graphs.parse(
        f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3, 6, 6] x) => (float[n, 2, 6, 6] y)
        <{declared}> {{
          s0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
          s = Relu (s0)
          {nodes}
          y = Conv <pads = [1, 1, 1, 1]> (z, wz)
        }}
        """,
        double=double,
    )
    for tensor in model.graph.initializer:
        if tensor.name[0] == "v":
            values = np.abs(onnx.numpy_helper.to_array(tensor))
            values += 0.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model


def channels(family):
    return {"inception": 11, "dense": 10, "U-Net": 9}.get(family, 4)


def holds(graphs, model, removed, groups, double):
    """The cut model is right at two batch sizes, by the reference or as it is run, and costs what was said."""
    run, tolerance = (graphs.reference, 1e-12) if double else (graphs.ort, 2e-6)
    labels = groups.removed_labels(removed)
    cut, twin = to_model(apply_removal(groups.labelled, labels)), to_model(silence(groups.labelled, labels))
    onnx.checker.check_model(infer_shapes(cut), full_check=True)
    for batch in (1, 3):
        feeds = graphs.random_feeds(model, batch=batch)
        assert graphs.difference(run(cut, feeds), run(twin, feeds)) < tolerance
    cost, recount = cost_model(groups), cost_model(graphs.groups_of(cut))
    kept = cost.kept(removed)
    assert cost.macs(kept) == recount.macs(recount.units)
    assert cost.params(kept) == recount.params(recount.units)
    return cut


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_branches_go_with_all_that_serves_them_alone(family, double, graphs):
    model = build(graphs, family, double=double)
    groups = graphs.groups_of(model)
    weight = {next(k.constant for k in g.produced): g for g in groups.free}
    reasons = Vanishing(groups).reasons
    _, _, goes, stays = FAMILIES[family]
    assert {name for name, group in weight.items() if reasons[group.name] is None} == set(goes)
    assert all(reasons[weight[name].name] for name in stays)
    for name, nodes in goes.items():
        group = weight[name]
        cut = holds(graphs, model, {group.name: range(group.units)}, groups, double)
        assert not nodes & {o for node in cut.graph.node for o in node.output}
    together = {weight[name].name: range(weight[name].units) for name in goes}
    partly = {g.name: [0] for g in groups.free if g.name not in together}
    holds(graphs, model, together | partly, groups, double)


def test_attention_goes_by_its_heads(graphs):
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 5, 8] x) => (float[2, 5, 3] y)
        <float[8, 8] w0, float[8, 8] wq, float[8, 8] wk, float[8, 8] wv, float[8, 8] wo, float[8] bo, float[8, 3] wy,
         int64[4] heads = {0, 0, 4, 2}, int64[3] flat = {0, 0, -1}> {
          s = MatMul (x, w0)
          q0 = MatMul (s, wq)
          k0 = MatMul (s, wk)
          v0 = MatMul (s, wv)
          q1 = Reshape (q0, heads)
          k1 = Reshape (k0, heads)
          v1 = Reshape (v0, heads)
          q = Transpose <perm = [0, 2, 1, 3]> (q1)
          k = Transpose <perm = [0, 2, 3, 1]> (k1)
          v = Transpose <perm = [0, 2, 1, 3]> (v1)
          m = MatMul (q, k)
          p = Softmax <axis = -1> (m)
          a = MatMul (p, v)
          b = Transpose <perm = [0, 2, 1, 3]> (a)
          c = Reshape (b, flat)
          d = MatMul (c, wo)
          e = Add (d, bo)
          z = Add (s, e)
          y = MatMul (z, wy)
        }
        """
    model = graphs.parse(text, double=True)
    groups = graphs.groups_of(model)
    reasons = Vanishing(groups).reasons
    gone = {g.name: range(g.units) for g in groups.free if reasons[g.name] is None}
    assert gone
    cut = to_model(apply_removal(groups.labelled, groups.removed_labels(gone)))
    feeds = graphs.random_feeds(model)
    twin = to_model(silence(groups.labelled, groups.removed_labels(gone)))
    assert graphs.difference(graphs.reference(cut, feeds), graphs.reference(twin, feeds)) < 1e-12
    assert {n.op_type for n in cut.graph.node} == {"MatMul", "Add"}


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_half_of_the_blocks_of_a_residual_network_go(shortcut, folded, graphs):
    model = models.resnet_cifar(20, shortcut, folded=folded)
    groups = graphs.groups_of(model)
    reasons = Vanishing(groups).reasons
    may = [g for g in groups.free if reasons[g.name] is None]
    assert len(may) >= 9
    gone = {g.name: range(g.units) for g in may[::2]}
    labels = groups.removed_labels(gone)
    cut = to_model(apply_removal(groups.labelled, labels))
    cost, recount = cost_model(groups), cost_model(graphs.groups_of(infer_shapes(cut)))
    assert cost.macs(cost.kept(gone)) == recount.macs(recount.units) < 0.7 * cost.macs(cost.units)
    feeds = graphs.random_feeds(model)
    twin = to_model(silence(groups.labelled, labels))
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6


def test_what_would_leave_an_output_constant_says_so(graphs):
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[n, 5] x) => (float[n, 3] y)
        <float[5, 8] w1, float[8, 6] w2, float[6, 3] w3> {
          a = MatMul (x, w1)
          b = MatMul (a, w2)
          y = MatMul (b, w3)
        }
        """
    reasons = Vanishing(graphs.groups_of(graphs.parse(text))).reasons
    assert list(reasons.values()) == ["the output 'y' would be a constant"] * 2


def test_two_branches_that_are_all_of_a_sum_do_not_go_together(graphs):
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3, 5, 5] x) => (float[n, 2, 5, 5] y)
        <float[4, 3, 1, 1] w1, float[5, 4, 1, 1] w2, float[4, 3, 1, 1] w3, float[5, 4, 1, 1] w4, float[2, 5, 3, 3] w5> {
          a = Conv (x, w1)
          b = Conv (a, w2)
          c = Conv (x, w3)
          d = Conv (c, w4)
          s = Add (b, d)
          y = Conv <pads = [1, 1, 1, 1]> (s, w5)
        }
        """
    reasons = Vanishing(graphs.groups_of(graphs.parse(text))).reasons
    assert reasons["a"] is None
    assert reasons["c"] == "Conv would read a constant with the zeros around it, a being gone"
