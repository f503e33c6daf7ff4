"""BatchNormalization put back for training: the same function at first, the same graph at the end."""

import numpy as np
import onnx
import pytest
import torch
from onnx_prune.models.resnet import resnet_cifar
from onnx_prune.passes.rewrite.batch_norm import fold_batch_norms, normalisable
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.proof.compare import max_relative_error
from onnx_prune.runtime.torch.graph_module import GraphModule
from onnx_prune.runtime.torch.training.batch_norm import insert_batch_norms, renew_statistics

from ..test_operators import drawn

HEADER = '<ir_version: 8, opset_import: ["": 17]>'


def images(count, size=32):
    return np.random.default_rng(0).standard_normal((count, 3, size, size)).astype(np.float32) + np.float32(0.5)


def batches(model, count=8, size=32):
    name = model.graph.input[0].name
    return [Batch({name: images(count, size)[i : i + 4]}, None) for i in range(0, count, 4)]


@pytest.fixture(scope="module")
def folded():
    return resnet_cifar(8, folded=True)


@pytest.fixture(scope="module")
def normalised(folded):
    return insert_batch_norms(folded, batches(folded))


def test_the_function_stays_the_same(folded, normalised):
    feeds = [{folded.graph.input[0].name: images(2)}]
    assert max_relative_error(normalised, folded, feeds).error < 1e-6


def test_every_folded_convolution_gets_one(folded, normalised):
    kinds = [node.op_type for node in normalised.graph.node]
    assert kinds.count("BatchNormalization") == kinds.count("Conv") == 7
    onnx.checker.check_model(normalised, full_check=True)


def test_statistics_are_those_of_the_data(normalised):
    module = GraphModule(normalised).train()
    x = torch.from_numpy(images(8))
    seen = {}
    name = normalised.graph.node[0].output[0]
    module(x, edits={name: lambda t: seen.setdefault("x", t)})
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in normalised.graph.initializer}
    _, _, _, mean, var = normalised.graph.node[1].input
    assert np.allclose(stored[mean], seen["x"].mean((0, 2, 3)).detach(), rtol=1e-5, atol=1e-6)
    assert np.allclose(stored[var], seen["x"].var((0, 2, 3), correction=0).detach(), rtol=1e-5)


def test_folded_again_the_graph_is_what_it_was(folded, normalised):
    again = fold_batch_norms(normalised)
    for tensor, before in zip(again.graph.initializer, folded.graph.initializer, strict=True):
        close = onnx.numpy_helper.to_array(tensor), onnx.numpy_helper.to_array(before)
        assert np.allclose(*close, rtol=1e-6, atol=1e-7)
        tensor.CopyFrom(before)
    assert again.SerializeToString(deterministic=True) == folded.SerializeToString(deterministic=True)


def test_folding_keeps_what_training_made_of_them(normalised):
    module = GraphModule(normalised).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        module(torch.from_numpy(images(8)))[0].square().mean().backward()
        optimiser.step()
    trained = module.to_model()
    feeds = [{normalised.graph.input[0].name: images(2)}]
    assert max_relative_error(trained, normalised, feeds).error > 1e-2
    assert max_relative_error(fold_batch_norms(trained), trained, feeds).error < 2e-6


GROUPED = f"""
{HEADER}
g (float[N, 3, 6, 6] x) => (float[N, 4, 12, 12] y)
<float[3, 4, 1, 1] w0, float[4] b0, float[4, 3, 2, 2] w1, float[6] b1, float[4, 6, 1, 1] w2, float[4] b2> {{
  a = ConvTranspose (x, w0, b0)
  r = Relu (a)
  t = ConvTranspose <group = 2, strides = [2, 2]> (r, w1, b1)
  s = Relu (t)
  y = Conv (s, w2, b2)
}}
"""


def test_transposed_and_grouped_filters_fold():
    model = drawn(GROUPED)
    data = batches(model, size=6)
    assert normalisable(model.graph) == ("a", "t")  # y is the graph's
    normalised = insert_batch_norms(model, data)
    feeds = [data[0].feeds]
    assert max_relative_error(normalised, model, feeds).error < 1e-6
    assert max_relative_error(fold_batch_norms(normalised), model, feeds).error < 1e-6


GATED = f"""
{HEADER}
g (float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y)
<float[4, 3, 1, 1] w0, float[4] b0, float[4, 4, 1, 1] w1, float[4] b1, float[4, 4, 1, 1] w2, float[4] b2,
 float[4] s, float[4] t, float[4] m, float[4] v = {{1, 2, 3, 4}}> {{
  a = Conv (x, w0, b0)
  p = GlobalAveragePool (a)
  g1 = Conv (p, w1, b1)
  g2 = Sigmoid (g1)
  z = Mul (a, g2)
  c = Conv (z, w2, b2)
  n = BatchNormalization (c, s, t, m, v)
  y = Relu (n)
}}
"""


def test_a_gate_gets_none_nor_a_convolution_that_has_one():
    model = drawn(GATED)
    normalised = insert_batch_norms(model, batches(model, size=6))
    put_in = [n.output[0] for n in normalised.graph.node if n.op_type == "BatchNormalization"]
    assert put_in == ["a", "n"]


def test_shared_weights_get_none():
    model = drawn(GATED.replace("w2, b2)", "w1, b1)"))
    assert normalisable(model.graph) == ("a",)


# ---- those that are there

ONE = f"""
{HEADER} g (float[N, 3, 4, 4] x) => (float y) <float[5, 3, 1, 1] w, float[5] s, float[5] t, float[5] m, float[5] v> {{
  d = Dropout (x)
  a = Conv (d, w)
  y = BatchNormalization (a, s, t, m, v)
}}"""


def test_running_statistics_become_the_mean_over_the_batches_and_nothing_else_changes():
    model = drawn(ONE)
    module = GraphModule(model).train()
    parts = torch.randn(3, 6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    made = [torch.nn.functional.conv2d(x, module.get_parameter("w")).detach().movedim(1, 0).flatten(1) for x in parts]
    renew_statistics(module, [[x] for x in parts])
    torch.testing.assert_close(module.get_buffer("m"), torch.stack([a.mean(1) for a in made]).mean(0))
    torch.testing.assert_close(module.get_buffer("v"), torch.stack([a.var(1) for a in made]).mean(0))
    assert module.training
    assert module.batch_norm is torch.nn.functional.batch_norm
    before, after = ({t.name: t.raw_data for t in m.graph.initializer} for m in (model, module.to_model()))
    assert [name for name in before if before[name] != after[name]] == ["m", "v"]


def test_without_batch_norm_nothing_is_run(folded):
    renew_statistics(GraphModule(folded), iter([["not a tensor"]]))
