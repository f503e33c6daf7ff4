"""Gradients of gates are those of the real loss, sample by sample, on the graph as it stands."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.selection.criteria.gradients.ccp import Ccp
from onnx_prune.passes.selection.criteria.gradients.ccp_ac import CcpAc
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.torch.gates.auxiliary import Depth, depths, features, softmax_regression
from onnx_prune.runtime.torch.gates.gradients import Wanted, gate_gradients
from onnx_prune.runtime.torch.gates.model import with_gates
from onnx_prune.runtime.torch.graph_module import GraphModule

STEP = 1e-5
NETWORKS = {  # name -> weights, and what makes q of x
    "behind a BatchNormalization": (
        "double[4,3,3,3] w1, double[4] s, double[4] t, double[4] m, double[4] v, double[5,4,3,3] w2, double[5,3] w",
        """
        a = Conv (x, w1)
        n = BatchNormalization (a, s, t, m, v)
        r = Relu (n)
        c = Conv (r, w2)
        q = Relu (c)
        """,
    ),
    "in a residual sum": (
        "double[4,3,1,1] w1, double[4] b1, double[3,4,3,3] w2, double[4,3,3,3] w3, double[4] b3, double[4,3] w",
        """
        a = Conv (x, w1, b1)
        r = Relu (a)
        c = Conv <pads=[1,1,1,1]> (r, w2)
        d = Relu (c)
        e = Conv <pads=[1,1,1,1]> (d, w3, b3)
        g = Add (r, e)
        q = Relu (g)
        """,
    ),
    "in a concatenation": (
        "double[3,3,1,1] w1, double[4,3,3,3] w2, double[2,7,1,1] w3, double[2,3] w",
        """
        a = Conv (x, w1)
        c = Conv <pads=[1,1,1,1]> (x, w2)
        d = Concat <axis=1> (a, c)
        r = Relu (d)
        e = Conv (r, w3)
        q = Relu (e)
        """,
    ),
    "through a depthwise convolution": (
        "double[4,3,1,1] w1, double[4] b1, double[4,1,3,3] wd, double[4] bd, double[5,4,1,1] w2, double[5,3] w",
        """
        a = Conv (x, w1, b1)
        r = Relu (a)
        d = Conv <group=4> (r, wd, bd)
        g = Relu (d)
        c = Conv (g, w2)
        q = Relu (c)
        """,
    ),
    "through groups": (
        "double[6,3,1,1] w1, double[6,3,3,3] wg, double[6] bg, double[5,6,1,1] w2, double[5,3] w",
        """
        a = Conv (x, w1)
        r = Relu (a)
        d = Conv <group=2> (r, wg, bg)
        g = Relu (d)
        c = Conv (g, w2)
        q = Relu (c)
        """,
    ),
    "with squeeze and excitation": (
        "double[4,3,1,1] w1, double[2,4,1,1] we, double[4,2,1,1] wx, double[4] bx, double[5,4,1,1] w2, double[5,3] w",
        """
        a = Conv (x, w1)
        r = Relu (a)
        z = GlobalAveragePool (r)
        e = Conv (z, we)
        u = Relu (e)
        h = Conv (u, wx, bx)
        k = Sigmoid (h)
        g = Mul (r, k)
        c = Conv (g, w2)
        q = Relu (c)
        """,
    ),
}
TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (double[N, 3, 5, 5] x) => (double[N, 3] y) <{weights}, double[3] b> {{
  {body}
  p = GlobalAveragePool (q)
  f = Flatten (p)
  y = Gemm (f, w, b)
}}
"""


def parsed(text, seed=0):
    """The model, with random numbers for the weights that the text declares."""
    model = onnx.parser.parse_model(text)
    made = {o for n in model.graph.node for o in n.output}
    rng = np.random.default_rng(seed)
    for value in model.graph.value_info:
        if value.name not in made:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            numbers = rng.standard_normal(shape) / max(np.prod(shape[1:]), 1) ** 0.5
            numbers = abs(numbers) + 0.5 if value.name == "v" else numbers
            model.graph.initializer.append(numpy_helper.from_array(numbers.astype(dtype), value.name))
    del model.graph.value_info[:]
    return model


def network(name):
    weights, body = NETWORKS[name]
    return parsed(TEXT.format(weights=weights, body=body))


def groups_of(model, shape=(1, 3, 5, 5)):
    graph = load(model)
    return channel_groups(label_channels(graph, tensor_facts(graph, {graph.source.graph.input[0].name: shape})))


def images(count=4, dtype=np.float64, shape=(3, 5, 5)):
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, *shape)).astype(dtype), rng.integers(0, 3, count)


def losses(model, x, labels):
    """The cross-entropy of each sample."""
    (y,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
    y = y - y.max(1, keepdims=True)
    return np.log(np.exp(y).sum(1)) - y[np.arange(len(y)), labels]


def scaled(model, group, unit, keys, factor):
    """The model with the unit's slices on these axes of the weights multiplied."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        for key in (k for k in keys if k[0] == tensor.name):
            values[(slice(None),) * key[2] + (group.slices[key][unit],)] *= factor
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return changed


def differences(model, group, keys, x, labels):
    """(samples, units): central differences of the loss by a factor on the unit's slices."""
    found = []
    for unit in range(group.units):
        more, less = (losses(scaled(model, group, unit, keys, 1 + s), x, labels) for s in (STEP, -STEP))
        found.append((more - less) / (2 * STEP))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_gates_are_factors_on_what_reads_the_unit(name):
    model = network(name)
    groups = groups_of(model)
    x, labels = images()
    U = gate_gradients(groups, [Batch({"x": x}, labels)])
    assert sorted(U) == sorted(group.name for group in groups.free)
    for group in groups.free:
        expected = differences(model, group, group.consumed, x, labels)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(U[group.name], expected, atol=1e-8)


def test_along_a_residual_stream_the_gates_of_all_that_add_to_it_are_summed():
    model = network("in a residual sum")
    groups = groups_of(model)
    group = next(g for g in groups.free if len(g.produced) == 2)
    x, labels = images()
    U = gate_gradients(groups, [Batch({"x": x}, labels)])[group.name]
    makers = [key for key in group.slices if key not in group.consumed]  # weights and biases
    assert len(makers) == 4
    np.testing.assert_allclose(U, differences(model, group, makers, x, labels), atol=1e-8)
    parts = [differences(model, group, [k for k in makers if k[0].endswith(end)], x, labels) for end in "13"]
    np.testing.assert_allclose(U, sum(parts), atol=1e-8)


def test_a_sample_s_gradients_do_not_depend_on_the_others():
    groups = groups_of(network("in a residual sum"))
    x, labels = images()
    together = gate_gradients(groups, [Batch({"x": x}, labels)])
    alone = gate_gradients(groups, [Batch({"x": x[i : i + 1]}, labels[i : i + 1]) for i in range(len(x))])
    for name, U in together.items():
        assert U.shape == (len(x), groups[name].units)
        np.testing.assert_allclose(U, alone[name], atol=1e-14)


SEQUENCE_FIRST = """
<ir_version: 8, opset_import: ["": 17]>
g (double[N, 4, 3] x) => (double[N, 3] y) <double[3,5] w1, double[5,3] w2> {
  t = Transpose <perm=[1,0,2]> (x)
  a = MatMul (t, w1)
  r = Relu (a)
  c = MatMul (r, w2)
  y = ReduceMean <axes=[0], keepdims=0> (c)
}
"""


def test_where_the_batch_is_not_the_first_axis_samples_go_one_by_one():
    model = parsed(SEQUENCE_FIRST)
    groups = groups_of(model, (1, 4, 3))
    x, labels = images(5, shape=(4, 3))
    (group,) = groups.free
    batches = [Batch({"x": x[part]}, labels[part]) for part in (slice(0, 1), slice(1, 5))]
    U = gate_gradients(groups, batches)[group.name]
    np.testing.assert_allclose(U, differences(model, group, group.consumed, x, labels), atol=1e-8)


def test_a_fixed_batch_that_is_mixed_is_refused():
    text = SEQUENCE_FIRST.replace("[N, 4, 3]", "[2, 4, 3]").replace("[N, 3]", "[2, 3]")
    groups = groups_of(parsed(text), (2, 4, 3))
    with pytest.raises(UsageError, match="fixes a batch of 2"):
        gate_gradients(groups, [Batch({"x": images(2, shape=(4, 3))[0]}, None)])


def test_queries_and_keys_have_gates_too():
    model = parsed(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4, 5] x) => (float[N, 4, 3] y) <float[5,6] wq, float[5,6] wk, float[5,3] wv> {
          q = MatMul (x, wq)
          k = MatMul (x, wk)
          v = MatMul (x, wv)
          kt = Transpose <perm = [0, 2, 1]> (k)
          s = MatMul (q, kt)
          p = Softmax <axis = -1> (s)
          y = MatMul (p, v)
        }
        """
    )
    groups = groups_of(model, (1, 4, 5))
    (group,) = groups.free
    U = gate_gradients(groups, [Batch({"x": images(4, np.float32, (4, 5))[0]}, None)])[group.name]
    assert U.shape == (4, 6)
    assert (np.abs(U).max(0) > 0).all()


BIASLESS = """
<ir_version: 8, opset_import: ["": 17]>
g (double[N, 3, 5, 5] x) => (double[N, 3] f) <double[4,3,3,3] w1, double[5,4,3,3] w2, double[5,3] w, double[3] b> {
  a = Conv (x, w1)
  r = Relu (a)
  c = Conv (r, w2)
  q = Relu (c)
  p = GlobalAveragePool (q)
  e = Flatten (p)
  y = Gemm (e, w, b)
  f = Softmax (y)
}
"""


def test_the_curvature_of_ccp_is_the_paper_s_sample_by_sample():
    """S = J^T diag(y / (f * f)) J along the filters w_i, J the derivatives of probabilities f; u = <w_i, dl/dw_i>."""
    model = parsed(BIASLESS)
    groups = groups_of(model)
    x, labels = images(6)
    U = gate_gradients(groups, [Batch({"x": x}, labels)])
    module = GraphModule(model).eval()
    for group in groups.free:
        w = module.get_parameter(module.parameter_names[group.produced[0][0]])
        S, u = np.zeros((group.units, group.units)), np.zeros(group.units)
        for image, label in zip(x, labels, strict=True):
            (f,) = module(torch.from_numpy(image[None]))
            J = np.stack([_along_filters(f[0, k], w) for k in range(3)])  # (classes, units)
            y = np.eye(3)[label]
            S += J.T @ np.diag(y / f[0].detach().numpy() ** 2) @ J / len(x)
            u += _along_filters(-torch.log(f[0, label]), w) / len(x)
        found_u, found_S = Ccp(linear=True)._quadratic(U[group.name])
        assert np.linalg.matrix_rank(S) > 1
        np.testing.assert_allclose(found_S, S, atol=1e-12)
        np.testing.assert_allclose(found_u, u, atol=1e-12)


def _along_filters(value, w):
    """<w_i, d value / d w_i> for each filter."""
    (gradient,) = torch.autograd.grad(value, w, retain_graph=True)
    return (gradient * w).detach().flatten(1).sum(1).numpy()


def test_what_is_drawn_follows_the_seed():
    groups = groups_of(network("in a residual sum"))
    data = [Batch({"x": images()[0]}, None)]
    first, again, other = (gate_gradients(groups, data, Wanted(seed=seed)) for seed in (0, 0, 1))
    for name in first:
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


def test_labels_are_left_aside_where_that_is_asked_for():
    groups = groups_of(network("in a residual sum"))
    x, labels = images()
    without, aside = (gate_gradients(groups, [Batch({"x": x}, y)], Wanted(labels=y is None)) for y in (None, labels))
    for name in without:
        assert np.array_equal(without[name], aside[name])


def test_a_label_without_a_class_is_refused():
    groups = groups_of(network("in a residual sum"))
    with pytest.raises(UsageError, match="a label is 3, and the model has 3 classes"):
        gate_gradients(groups, [Batch({"x": images()[0]}, np.array([0, 1, 2, 3]))])


def test_gradients_that_are_not_finite_are_refused():
    groups = groups_of(network("in a residual sum"))
    with pytest.raises(ReadError, match="not finite"):
        gate_gradients(groups, [Batch({"x": images()[0] * np.inf}, images()[1])])


def test_gates_leave_the_model_as_it_is():
    model = network("in a concatenation")
    gated = with_gates(groups_of(model))
    x, _ = images()
    (before,), (after,) = (ReferenceEvaluator(m).run(None, {"x": x}) for m in (model, gated.model))
    assert np.array_equal(before, after)
    assert sum(gate.columns.size for gate in gated.tensors) == 7 + 2
    assert gated.gates == 3 + 4 + 2


def test_auxiliary_classifiers_speak_to_the_layers_in_front_of_them_alone():
    groups = groups_of(network("behind a BatchNormalization"))
    x, labels = images(8)
    data = [Batch({"x": x}, labels)]
    plain, helped = (gate_gradients(groups, data, Wanted(auxiliary=n)) for n in (0, 1))
    (depth,) = depths(groups.labelled, 1)
    first, last = (group.name for group in groups.free)
    assert depth.tensor == "r"
    np.testing.assert_allclose(helped[last], np.concatenate([plain[last], 0 * plain[last]]), atol=1e-12)
    np.testing.assert_allclose(helped[first][:8], plain[first], atol=1e-12)
    assert np.abs(helped[first][8:]).max() > 1e-3


def head_losses(model, tensor, x, labels, head):
    """The cross-entropy of a linear classifier on the mean over positions of that tensor, sample by sample."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.DOUBLE, None))
    _, values = ReferenceEvaluator(shown).run(None, {"x": x})
    features = np.maximum(values, 0).mean((2, 3))
    W, b = softmax_regression(features, labels, 3) if head is None else head
    y = features.astype(np.float32) @ W.T + b
    return W, b, np.log(np.exp(y).sum(1)) - y[np.arange(len(y)), labels]


def test_the_curvature_of_ccp_ac_is_the_sum_of_the_losses_curvatures_without_products_of_different_losses():
    model = network("behind a BatchNormalization")
    groups = groups_of(model)
    x, labels = images(8)
    group = groups.free[0]
    scales = [key for key in group.slices if key[0] in {"s", "t"}]  # scale and bias together are a gate behind both
    own = differences(model, group, scales, x, labels)
    W, b, _ = head_losses(model, "r", x, labels, None)
    W, b = W.astype(np.float32).astype(float), b.astype(np.float32).astype(float)
    columns, step = [], 1e-3  # the classifier's features are float32
    for unit in range(group.units):
        more, less = (
            head_losses(scaled(model, group, unit, scales, 1 + s), "r", x, labels, (W, b))[2] for s in (step, -step)
        )
        columns.append((more - less) / (2 * step))
    aside = np.stack(columns, axis=1)
    u, S = Ccp(linear=True)._quadratic(own)
    found_u, found_S = CcpAc(classifiers=1, linear=True)._quadratic(
        gate_gradients(groups, [Batch({"x": x}, labels)], Wanted(auxiliary=1))[group.name]
    )
    np.testing.assert_allclose(found_S, S + aside.T @ aside / 8, atol=2e-4)
    np.testing.assert_allclose(found_u, u + aside.mean(0), atol=2e-4)
    summed = (own + aside).T @ (own + aside) / 8
    assert np.abs(found_S - summed).max() > 0.01


def by_hand(w, x, gate=None):
    """The network "behind a BatchNormalization": what the head reads, and the logits; with a factor on r."""
    n = F.batch_norm(F.conv2d(x, w["w1"]), w["m"], w["v"], w["s"], w["t"])
    r = torch.relu(n) if gate is None else torch.relu(n) * gate[:, :, None, None]
    return r.mean((2, 3)).float(), F.linear(torch.relu(F.conv2d(r, w["w2"])).mean((2, 3)), w["w"].T, w["b"])


def test_classifiers_are_trained_with_the_network_where_that_is_asked_for():
    """Three passes of descent on the sum of both losses, over two batches, written out; then the gradients by gates."""
    model = network("behind a BatchNormalization")
    groups = groups_of(model)
    x, labels = images(12)
    batches = [Batch({"x": x[:7]}, labels[:7]), Batch({"x": x[7:]}, labels[7:])]
    fitted, tuned = (gate_gradients(groups, batches, Wanted(auxiliary=1, tuned=t)) for t in (False, True))
    w = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    X, y = torch.from_numpy(x), torch.from_numpy(labels)
    head = [torch.from_numpy(part).float() for part in softmax_regression(by_hand(w, X)[0].numpy(), labels, 3)]
    learning = [*(values for name, values in w.items() if name not in {"m", "v"}), *head]
    for values in learning:
        values.requires_grad_(True)
    velocity = [torch.zeros_like(values) for values in learning]
    for part in [slice(0, 7), slice(7, 12)] * 3:
        features, logits = by_hand(w, X[part])
        loss = F.cross_entropy(logits, y[part]) + F.cross_entropy(F.linear(features, *head), y[part])
        gradients = torch.autograd.grad(loss, learning)
        with torch.no_grad():
            for values, speed, gradient in zip(learning, velocity, gradients, strict=True):
                values.sub_(1e-3 * speed.mul_(0.9).add_(gradient))
    gate = torch.ones(12, 4, dtype=torch.float64, requires_grad=True)
    features, logits = by_hand(w, X, gate)
    losses = F.cross_entropy(logits, y, reduction="sum"), F.cross_entropy(F.linear(features, *head), y, reduction="sum")
    wanted = np.concatenate([torch.autograd.grad(loss, gate, retain_graph=True)[0].numpy() for loss in losses])
    first = groups.free[0].name
    np.testing.assert_allclose(tuned[first], wanted, atol=1e-5)  # the features are float32
    assert np.abs(fitted[first] - wanted).max() > 1e-4
    assert (CcpAc(heads="finetuned").tuned, CcpAc().tuned) == (True, False)


FLAT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 4, 4] x) => (float[N, 3] y)
<float[6,3,3,3] w1, float[12,24] w2, float[12] b2, float[8,12] w3, float[3,8] w4> {
  a = Conv (x, w1)
  r = Relu (a)
  f = Flatten (r)
  h = Gemm <transB = 1> (f, w2, b2)
  q = Relu (h)
  k = Gemm <transB = 1> (q, w3)
  z = Relu (k)
  y = Gemm <transB = 1> (z, w4)
}
"""


def test_auxiliary_classifiers_read_layers_without_positions_as_they_are():
    """Behind fully connected layers there is nothing to average over, as in VGG-16."""
    model = parsed(FLAT)
    groups = groups_of(model, (1, 3, 4, 4))
    x, labels = images(9, np.float32, (3, 4, 4))
    U = gate_gradients(groups, [Batch({"x": x}, labels)], Wanted(auxiliary=2))
    w = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    f = torch.relu(F.conv2d(torch.from_numpy(x), w["w1"])).flatten(1)
    q = torch.relu(F.linear(f, w["w2"], w["b2"]))
    assert [depth.tensor for depth in depths(groups.labelled, 2)] == ["f", "q"]
    W, b = (torch.from_numpy(part).float() for part in softmax_regression(q.numpy(), labels, 3))
    gate = torch.ones(9, 12, requires_grad=True)
    loss = F.cross_entropy(F.linear(q * gate, W, b), torch.from_numpy(labels), reduction="sum")
    loss.backward()
    (last,) = (group.name for group in groups.free if group.units == 12)
    np.testing.assert_allclose(U[last][18:], gate.grad.numpy(), rtol=1e-3, atol=1e-5)
    assert not U[last][9:18].any(), "the head behind f sees nothing of q"


def test_auxiliary_classifiers_rectify_what_nothing_has_rectified_before_them():
    """A residual sum that the next layer reads as it is: the head's features are means of what a ReLU leaves."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 5, 5)))
    found = features(x, Depth("sum", 1), 2).numpy()
    np.testing.assert_allclose(found, np.maximum(x.numpy(), 0).mean((2, 3)), rtol=1e-6)
    last = features(x.movedim(1, 3), Depth("sum", 3), 2).numpy()
    np.testing.assert_array_equal(last, found)


def test_auxiliary_classifiers_want_depths():
    with pytest.raises(UsageError, match="no 9 depths"):
        depths(groups_of(network("in a concatenation")).labelled, 9)
