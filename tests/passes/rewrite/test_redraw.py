"""A network drawn anew: its layers as He et al. 2015 begin, its normalisations the identity, all else as it was."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune import models
from onnx_prune.passes.rewrite.redraw import drawn_anew


def values(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_weights_have_the_variance_of_their_fan_in_and_normalisations_do_nothing():
    model = models.resnet_cifar(20)
    drawn = values(drawn_anew(model, 3))
    wide = {name: v for name, v in drawn.items() if v.size > 4000}
    assert len(wide) > 10
    for weight in wide.values():
        fan = math.prod(weight.shape[1:])
        assert weight.std() == pytest.approx(math.sqrt(2 / fan), rel=0.05)
        assert abs(weight.mean()) < 4 * weight.std() / math.sqrt(weight.size)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            assert [set(drawn[name].tolist()) for name in node.input[1:]] == [{1.0}, {0.0}, {0.0}, {1.0}]
    assert not drawn[model.graph.node[-1].input[2]].any()
    assert {name: (v.shape, v.dtype) for name, v in drawn.items()} == {
        name: (v.shape, v.dtype) for name, v in values(model).items()
    }


def test_a_seed_gives_the_same_network_and_another_another():
    model = onnx.load(models.digits_model())
    same, again, other = (drawn_anew(model, seed).SerializeToString() for seed in (1, 1, 2))
    assert same == again != other


def test_what_is_no_weight_of_a_layer_stays():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y)
        <float[1, 3, 1, 1] mean = {1, 2, 3}, float[2, 3, 1, 1] w = {1, 1, 1, 1, 1, 1}, float[2] b = {5, 6}>
        { z = Sub (x, mean) y = Conv (z, w, b) }
    """)
    before, after = values(model), values(drawn_anew(model, 0))
    np.testing.assert_array_equal(after["mean"], before["mean"])
    assert (after["w"] != before["w"]).all()
    assert not after["b"].any()


@pytest.mark.parametrize(
    ("node", "shape", "fan"),
    [
        ("Gemm <transB = 1> (x, w)", (90, 200), 200),
        ("Gemm (x, w)", (200, 90), 200),
        ("MatMul (x, w)", (200, 90), 200),
    ],
)
def test_matrices_are_read_the_way_their_operator_does(node, shape, fan):
    dims = ", ".join(map(str, shape))
    signature = f"g (float[N, 200] x, float[{dims}] w) => (float[N, 90] y)"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {signature} {{ y = {node} }}')
    model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "w"))
    assert values(drawn_anew(model, 0))["w"].std() == pytest.approx(math.sqrt(2 / fan), rel=0.05)
