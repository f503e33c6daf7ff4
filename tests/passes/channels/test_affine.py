"""Consumers as matrices: y = W u + b is what the node computes, before and after other weights are written."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_prune.passes.algebra.im2col import patch_table
from onnx_prune.passes.algebra.least_squares import Refit
from onnx_prune.passes.channels.affine import affine_consumers, write_refit
from onnx_prune.passes.graph.export import to_model

MAPS = "g (float[2, 3, 5, 4] x) => (float[2, C, H, W] y)"
ROWS = "g (float[7, 5] x) => (float[7, 4] y)"
READ = {
    "Conv": (MAPS, "float[6, 3, 3, 2] w, float[6] b", "y = Conv <pads = [1, 0, 2, 1], strides = [2, 1]> (x, w, b)"),
    "Conv without a bias": (MAPS, "float[6, 3, 2, 2] w", "y = Conv <dilations = [2, 1]> (x, w)"),
    "ConvTranspose": (MAPS, "float[3, 6, 3, 2] w, float[6] b", "y = ConvTranspose <strides = [2, 3]> (x, w, b)"),
    "Gemm": (ROWS, "float[5, 4] w, float[4] b", "y = Gemm (x, w, b)"),
    "Gemm with a transposed weight": (ROWS, "float[4, 5] w, float[4] b", "y = Gemm <transB = 1> (x, w, b)"),
    "Gemm without a bias": (ROWS, "float[5, 4] w", "y = Gemm (x, w)"),
    "MatMul": (ROWS, "float[5, 4] w", "y = MatMul (x, w)"),
    "MatMul of three axes": ("g (float[3, 7, 5] x) => (float[3, 7, 4] y)", "float[5, 4] w", "y = MatMul (x, w)"),
}
LEFT_OUT = {
    "a group convolution": (MAPS, "float[6, 1, 1, 1] w", "y = Conv <group = 3> (x, w)"),
    "a product with a factor": (ROWS, "float[5, 4] w, float[4] b", "y = Gemm <alpha = 0.5> (x, w, b)"),
    "a bias with a factor": (ROWS, "float[5, 4] w, float[4] b", "y = Gemm <beta = 2.0> (x, w, b)"),
    "a bias that is no vector": (ROWS, "float[5, 4] w, float[7, 4] b", "y = Gemm (x, w, b)"),
    "transposed data": (
        "g (float[5, 7] x) => (float[7, 4] y)",
        "float[5, 4] w",
        "y = Gemm <transA = 1> (x, w)",
    ),
    "a weight first": ("g (float[5, 7] x) => (float[4, 7] y)", "float[4, 5] w", "y = MatMul (w, x)"),
    "a vector as the weight": ("g (float[7, 5] x) => (float[7] y)", "float[5] w", "y = MatMul (x, w)"),
    "a weight a sample": ("g (float[3, 7, 5] x) => (float[3, 7, 4] y)", "float[3, 5, 4] w", "y = MatMul (x, w)"),
    "a weight that two nodes read in different ways": (
        ROWS,
        "float[5, 4] w, float[4] b",
        "c = MatMul (x, w)\n d = Gemm (x, w, b)\n y = Add (c, d)",
    ),
    "a weight that is made": (ROWS, "float[5, 4] v", "w = Tanh (v)\n y = MatMul (x, w)"),
}
WRITTEN = {
    **READ,
    "MatMul and a bias": (ROWS, "float[5, 4] w, float[4] b", "p = MatMul (x, w)\n y = Add (p, b)"),
    "MatMul and a bias first": (ROWS, "float[5, 4] w, float[1, 4] b", "p = MatMul (x, w)\n y = Add (b, p)"),
    "a name that is taken": (ROWS, "float[5, 4] w, float[4] p_bias", "p = MatMul (x, w)\n y = Tanh (p)"),
    "a bias that others read": (
        ROWS,
        "float[5, 4] w, float[4] b",
        "p = Gemm (x, w, b)\n q = Tanh (p)\n y = Add (q, b)",
    ),
}


def parse(graphs, case):
    head, weights, body = case
    return graphs.parse(
        f'<ir_version: 8, opset_import: ["": 17]>\n{head}\n<{weights}> {{\n{body}\n}}', seed=3, double=True
    )


def consumers_of(graphs, model):
    labelled = graphs.groups_of(model).labelled
    return labelled, list(affine_consumers(labelled))


def computed(labelled, consumer, W, b, x):
    """W u + b of every patch u, by loops over the table of patches; shaped like the node's output."""
    node = labelled.graph.gs.nodes[consumer.consumer.node]
    shape = labelled.facts.shapes[consumer.name]
    if consumer.layout.window is None:
        return x @ W[:, :, 0].T + b
    kernel = labelled.facts.shapes[consumer.consumer.weight][2:]
    transposed = consumer.layout.window == "transposed"
    table = patch_table(node.attrs, x.shape[2:], shape[2:], kernel, transposed=transposed)
    y = np.zeros((len(x), len(W), len(table))) + b[:, None]
    flat = x.reshape(*x.shape[:2], -1)
    for place, row in enumerate(table):
        for k, position in enumerate(row):
            if position >= 0:
                y[:, :, place] += flat[:, :, position] @ W[:, :, k].T
    return y.reshape(shape)


@pytest.mark.parametrize("name", READ)
def test_a_consumer_computes_its_matrix_of_a_patch(name, graphs):
    model = parse(graphs, READ[name])
    labelled, (consumer,) = consumers_of(graphs, model)
    feeds = graphs.random_feeds(model)
    assert consumer.W.dtype == consumer.b.dtype == np.float64
    assert consumer.W.shape[:2] == (len(consumer.outputs), len(consumer.inputs))
    expected = graphs.reference(model, feeds)
    assert graphs.difference([computed(labelled, consumer, consumer.W, consumer.b, feeds["x"])], expected) < 1e-12


def test_transposed_filters_are_another_matrix(graphs):
    model = parse(graphs, READ["ConvTranspose"])
    labelled, (consumer,) = consumers_of(graphs, model)
    feeds = graphs.random_feeds(model)
    wrong = computed(labelled, consumer, consumer.W[:, :, ::-1], consumer.b, feeds["x"])
    assert graphs.difference([wrong], graphs.reference(model, feeds)) > 1e-3


@pytest.mark.parametrize("name", LEFT_OUT)
def test_no_consumer(name, graphs):
    assert consumers_of(graphs, parse(graphs, LEFT_OUT[name]))[1] == []


def test_a_weight_that_two_nodes_share_is_one_consumer_with_two_uses(graphs):
    text = "c = MatMul (x, w)\n d = MatMul (x, w)\n y = Add (c, d)"
    (consumer,) = consumers_of(graphs, parse(graphs, (ROWS, "float[5, 4] w", text)))[1]
    assert consumer.uses == ("c", "d")


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_what_the_node_computes(name, graphs):
    model = parse(graphs, WRITTEN[name])
    labelled, (consumer,) = consumers_of(graphs, model)
    rng = np.random.default_rng(5)
    refit = Refit(rng.normal(size=consumer.W.shape), rng.normal(size=consumer.b.shape))
    graph = labelled.graph.copy()
    write_refit(graph, consumer, refit)
    after = to_model(graph)
    assert len({t.name for t in after.graph.initializer}) == len(after.graph.initializer)
    feeds = graphs.random_feeds(model)
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    y = computed(labelled, consumer, refit.weight, refit.bias, feeds["x"])
    if "a bias" in name and name.startswith("MatMul"):
        y = y + held["b"]  # the bias of the Add was not the product's: the change of the product's is added to it
    elif name == "a bias that others read":
        y = np.tanh(y) + held["b"]
    elif name == "a name that is taken":
        y = np.tanh(y)
    assert graphs.difference([y], graphs.reference(after, feeds)) < 1e-12
    assert graphs.difference(graphs.reference(to_model(labelled.graph), feeds), graphs.reference(model, feeds)) == 0


def test_a_product_whose_new_bias_is_nothing_gets_no_node(graphs):
    labelled, (consumer,) = consumers_of(graphs, parse(graphs, READ["MatMul"]))
    graph = labelled.graph.copy()
    write_refit(graph, consumer, Refit(consumer.W * 2, consumer.b))
    assert [node.op for node in graph.gs.nodes] == ["MatMul"]


def test_a_bias_keeps_its_name_where_the_node_has_one_of_its_own(graphs):
    labelled, (consumer,) = consumers_of(graphs, parse(graphs, READ["Gemm"]))
    graph = labelled.graph.copy()
    write_refit(graph, consumer, Refit(consumer.W, consumer.b + 1))
    assert [t.name for t in graph.gs.nodes[0].inputs] == ["x", "w", "b"]
