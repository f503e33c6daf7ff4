"""BatchNormalization put in and folded again touches no other node, whatever the model calls its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune.passes.rewrite.batch_norm import (
    ChannelStatistics,
    fold_batch_norms,
    insert_batch_norms,
    normalisable,
)

OWN = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2, 3, 4, 4] x) => (float[2, 2, 4, 4] y)
    <float[4, 3, 1, 1] w1, float[4, 4, 1, 1] w2, float[4] b2, float[2, 4, 1, 1] w3, float[4] s, float[4] b, float[4] m,
     float[4] v = {1, 2, 3, 4}> {
      a = Conv (x, w1)
      n = BatchNormalization (a, s, b, m, v)
      c = Conv (n, w2, b2)
      r = Relu (c)
      y = Conv (r, w3)
    }
    """
STATISTICS = {"c": ChannelStatistics(np.arange(4.0), np.arange(1.0, 5.0))}


@pytest.fixture
def own(graphs):
    """A model with a BatchNormalization of its own that is called as ours are."""
    model = graphs.parse(OWN)
    model.graph.node[1].name = "features.0.batch_norm"
    return model


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_only_what_was_put_in_is_folded(own, graphs):
    assert normalisable(own.graph) == ("c",)
    normalised = insert_batch_norms(own, STATISTICS)
    assert operators(normalised).count("BatchNormalization") == 2
    feeds = graphs.random_feeds(own)
    assert graphs.difference(graphs.ort(normalised, feeds), graphs.ort(own, feeds)) < 2e-6
    again = fold_batch_norms(normalised)
    assert operators(again) == operators(own)
    assert graphs.difference(graphs.ort(again, feeds), graphs.ort(own, feeds)) < 2e-6


def test_what_is_put_in_takes_no_name_of_the_model_s(own, graphs):
    own.graph.node[1].output[0] = own.graph.node[2].input[0] = "c.batch_norm"
    own.graph.initializer.add().CopyFrom(own.graph.initializer[0])
    own.graph.initializer[-1].name = "c.batch_norm_2.scale"
    normalised = insert_batch_norms(own, STATISTICS)
    onnx.checker.check_model(normalised, full_check=True)
    feeds = graphs.random_feeds(own)
    assert graphs.difference(graphs.ort(normalised, feeds), graphs.ort(own, feeds)) < 2e-6
    assert operators(fold_batch_norms(normalised)) == operators(own)
