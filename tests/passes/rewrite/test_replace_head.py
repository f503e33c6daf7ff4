"""Fully connected layers at the end of a classifier are found, read as one linear layer, and replaced."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune import models
from onnx_prune.passes.algebra.least_squares import Refit
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.rewrite.replace_head import find_head, linear_start, replace_head

NET = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 6, 6] x) => (float[N, 5] y)
<float[4, 3, 3, 3] w, float[7, 144] w1, float[7] b1, float[7, 5] w2, float[5] b2> {
  c = Conv <pads = [1, 1, 1, 1]> (x, w)
  r = Relu (c)
  HEAD
}
"""
GEMM = (
    "f = Flatten (r)  h = Gemm <transB = 1> (f, w1, b1)  {between}  m = MatMul (s, w2)  l = Add (m, b2)  y = {end} (l)"
)


def labels_of(graphs, model):
    return graphs.groups_of(model).labelled


@pytest.fixture
def classifier(graphs):
    def build(between="s = Relu (h)", end="Softmax"):
        return graphs.parse(NET.replace("HEAD", GEMM.format(between=between, end=end)))

    return build


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax", "Identity"])
@pytest.mark.parametrize("between", ["s = Relu (h)", "d = Relu (h)  s = Dropout (d)", "s = Clip (h)"])
def test_the_head_goes_from_the_maps_to_the_logits(graphs, classifier, between, end):
    head = find_head(labels_of(graphs, classifier(between, end)))
    assert (head.maps, head.logits, head.layers) == ("r", "l", ("h", "m"))


def test_the_classifiers_of_vgg_are_found(groups_of):
    labelled = groups_of(models.vgg16_cifar()).labelled
    head = find_head(labelled)
    assert [labelled.graph.gs.nodes[n].op for n in head.nodes] == [
        "Flatten",
        "Gemm",
        "BatchNormalization",
        "Relu",
        "Gemm",
    ]
    assert len(find_head(groups_of(models.vgg16_imagenet(hidden=64, input_size=32)).labelled).layers) == 3


@pytest.mark.parametrize(
    "build", [lambda: models.resnet_cifar(20), models.unet], ids=["pooled already", "no classifier"]
)
def test_other_ends_are_refused(groups_of, build):
    with pytest.raises(UsageError, match="no fully connected layers"):
        find_head(groups_of(build()).labelled)


def test_a_branch_within_the_head_is_refused(graphs):
    forked = "f = Flatten (r)  h = Gemm <transB = 1> (f, w1, b1)  s = Mul (h, h)  m = MatMul (s, w2)  y = Add (m, b2)"
    with pytest.raises(UsageError):
        find_head(labels_of(graphs, graphs.parse(NET.replace("HEAD", forked))))


def test_the_linear_start_is_exact_on_constant_maps_without_what_is_between(graphs, classifier):
    labelled = labels_of(graphs, classifier("s = Identity (h)", "Identity"))
    refit = linear_start(find_head(labelled), 4)
    maps = np.random.default_rng(0).standard_normal((3, 4))
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in labelled.graph.source.graph.initializer}
    flat = np.repeat(maps, 36, axis=1)
    wanted = (flat @ weights["w1"].T + weights["b1"]) @ weights["w2"] + weights["b2"]
    np.testing.assert_allclose(maps @ refit.weight[:, :, 0].T + refit.bias, wanted, rtol=1e-5, atol=1e-4)


def test_a_batch_normalization_in_the_head_is_part_of_the_start(groups_of):
    labelled = groups_of(models.vgg16_cifar()).labelled
    head = find_head(labelled)
    refit = linear_start(head, 512)
    (W1, b1), (scale, shift), (W2, b2) = head.steps
    x = np.random.default_rng(0).standard_normal(512)
    np.testing.assert_allclose(
        refit.weight[:, :, 0] @ x + refit.bias, W2 @ (scale @ (W1 @ x + b1) + shift) + b2, rtol=1e-9
    )


def test_the_replaced_head_computes_pooling_and_the_layer(graphs, classifier):
    model = classifier()
    labelled = labels_of(graphs, model)
    rng = np.random.default_rng(1)
    refit = Refit(rng.standard_normal((5, 4, 1)), rng.standard_normal(5))
    changed, name = replace_head(labelled.graph, find_head(labelled), refit)
    result = to_model(changed)
    onnx.checker.check_model(result, full_check=True)
    assert name == "l"
    assert [n.op_type for n in result.graph.node] == [
        "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm", "Softmax",
    ]  # fmt: skip
    assert {t.name for t in result.graph.initializer} == {"w", "head.weight", "head.bias"}
    feeds = graphs.random_feeds(model)
    weights = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "w")
    probe = graphs.parse(NET.replace("HEAD", "p = GlobalAveragePool (r)  y = Flatten (p)").replace("[N, 5]", "[N, 4]"))
    del probe.graph.initializer[:]
    probe.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    (pooled,) = graphs.reference(probe, feeds)
    logits = pooled @ refit.weight[:, :, 0].T + refit.bias
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(graphs.reference(result, feeds)[0], wanted, rtol=1e-5)
    assert labelled.graph.gs.nodes[2].op == "Flatten", "the graph that was given is not changed"


def test_names_that_are_taken_are_not_used_again(graphs, classifier):
    model = classifier()
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("w2", "head.weight")
    for node in model.graph.node:
        node.input[:] = [name.replace("w2", "head.weight") for name in node.input]
    labelled = labels_of(graphs, model)
    changed, _ = replace_head(labelled.graph, find_head(labelled), linear_start(find_head(labelled), 4))
    assert {t.name for t in to_model(changed).graph.initializer} == {"w", "head_2.weight", "head_2.bias"}
