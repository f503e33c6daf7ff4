"""Products of unsigned data with unsigned weights are those with the signed ones, whatever has a name already."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx_prune.passes.rewrite.arithmetic.unsigned import with_unsigned_weights

PRODUCT = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[3, 5] x) => (float[3, 4] y)
    <int8[5, 4] w, int8 v = {-7}, int8[5, 4] w.unsigned> {
      q, s, z = DynamicQuantizeLinear (x)
      a = MatMulInteger (q, w, z, v)
      b = MatMulInteger (q, w, z)
      c = Add (a, b)
      f = Cast <to = 1> (c)
      y = Mul (f, s)
    }
    """


@pytest.fixture
def product(graphs):
    model = graphs.parse(PRODUCT.replace("w.unsigned", "unused"))
    model.graph.initializer[-1].name = "w.unsigned"
    return model


def test_the_product_is_the_same(product, graphs):
    shifted = with_unsigned_weights(product)
    stored = {t.name: t for t in shifted.graph.initializer}
    weights = [stored[node.input[1]] for node in shifted.graph.node if node.op_type == "MatMulInteger"]
    assert [t.data_type for t in weights] == [TensorProto.UINT8] * 2
    assert len(stored) == len(shifted.graph.initializer)
    feeds = graphs.random_feeds(product)
    np.testing.assert_array_equal(graphs.ort(shifted, feeds), graphs.ort(product, feeds))


def test_another_shift_is_seen(product, graphs):
    shifted = with_unsigned_weights(product)
    name = shifted.graph.node[1].input[1]
    tensor = next(t for t in shifted.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) ^ 1, name))
    feeds = graphs.random_feeds(product)
    assert np.abs(graphs.ort(shifted, feeds)[0] - graphs.ort(product, feeds)[0]).max() > 1e-3


def test_a_model_without_signed_weights_is_itself(graphs):
    model = graphs.parse(
        PRODUCT.replace("int8[5, 4] w,", "uint8[5, 4] w,")
        .replace("int8 v = {-7}", "uint8 v = {7}")
        .replace("w.unsigned", "u")
    )
    assert with_unsigned_weights(model) is model
