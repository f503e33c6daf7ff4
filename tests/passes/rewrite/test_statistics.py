"""Statistics of channels in the graph against numpy, wherever the channels stand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_prune.passes.channels.activations import Activation
from onnx_prune.passes.rewrite.statistics import statistics

X = np.maximum(np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32), 0)


def measured(graphs, sites, opset):
    """Tensor -> mean, mean square and share of non-zeros, as ONNX Runtime computes them of X and X transposed."""
    nodes, outputs = statistics(sites, opset)
    copies = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Transpose", ["x"], ["b"], perm=[0, 2, 1])]
    names = [name for triple in outputs.values() for name in triple]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in names]
    graph = helper.make_graph([*copies, *nodes], "g", [helper.make_tensor_value_info("x", 1, X.shape)], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    found = dict(zip(names, graphs.ort(model, {"x": X}), strict=True))
    return {tensor: [found[name] for name in triple] for tensor, triple in outputs.items()}


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_they_are_means_over_all_other_axes(opset, graphs):
    found = measured(graphs, [Activation("a", 1, 3), Activation("b", 2, 3)], opset)
    expected = [X.mean((0, 2)), np.square(X).mean((0, 2)), (X != 0).mean((0, 2))]
    for tensor in ("a", "b"):  # b holds the same, its channels last
        for ours, theirs in zip(found[tensor], expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_tensor_that_is_asked_for_twice_is_measured_once():
    nodes, outputs = statistics([Activation("a", 1, 3)] * 2, 13)
    assert list(outputs) == ["a"]
    assert len(nodes) == len(statistics([Activation("a", 1, 3)], 13)[0])
