"""Which stored numbers are trained: what layers read as weights, not what a formula needs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_prune.runtime.torch.weights import weights

from .test_operators import drawn

HEAD = "g (float[2, 3, 4, 4] x) => (float[2, 4, 4, 4] y) <float[4, 3, 1, 1] w, float[4, 4, 1, 1] v"


def trained(weights_text, nodes):
    text = f'<ir_version: 8, opset_import: ["": 17]> {HEAD}, {weights_text}> {{ a = Conv (x, w)\n {nodes} }}'
    sorted_ = weights(drawn(text).graph)
    return set(sorted_.trained) - {"w", "v"}, set(sorted_.statistics)


@pytest.mark.parametrize(
    ("stored", "nodes", "expected"),
    [
        ("float[4] b", "y = Conv (a, v, b)", {"b"}),
        ("float[4, 1, 1] b", "c = Add (a, b)\n y = Conv (c, v)", {"b"}),
        ("float[4, 1, 1] s", "c = Mul (a, s)\n y = Conv (c, v)", {"s"}),  # a layer scale
        ("float[1, 4, 4, 4] p", "c = Add (a, p)\n y = Conv (c, v)", {"p"}),  # positions before a layer
        ("float[1, 4, 4, 4] p", "c = Conv (a, v)\n y = Add (c, p)", set()),  # anchors after the last one
        ("float k", "c = Mul (a, k)\n y = Conv (c, v)", set()),
        ("float[4] k", "c = Clip (a, )\n y = Conv (c, v)", set()),  # nobody reads it
        ("int64[4] s = {2, 4, 4, 4}", "c = Reshape (a, s)\n y = Conv (c, v)", set()),
        ("float[4] s, float[4] b", "c = InstanceNormalization (a, s, b)\n y = Conv (c, v)", {"s", "b"}),
        ("float[4, 1, 1] p", "c = PRelu (a, p)\n y = Conv (c, v)", {"p"}),
    ],
)
def test_what_layers_learn_is_trained(stored, nodes, expected):
    assert trained(stored, nodes) == (expected, set())


def test_running_statistics_are_not_trained_and_told():
    found = trained(
        "float[4] s, float[4] b, float[4] m, float[4] var = {1, 2, 3, 4}",
        "c = BatchNormalization (a, s, b, m, var)\n y = Conv (c, v)",
    )
    assert found == ({"s", "b"}, {"m", "var"})


def test_what_prepares_the_input_is_not_trained():
    rng = np.random.default_rng(0)
    stored = {"mean": (3, 1, 1), "std": (3, 1, 1), "w": (4, 3, 1, 1)}
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["c"]),
        helper.make_node("Div", ["c", "std"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(rng.random(s).astype(np.float32), n) for n, s in stored.items()]
    ends = [helper.make_tensor_value_info(n, 1, None) for n in "xy"]
    assert weights(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)).trained == ("w",)


def test_a_mask_is_not_trained():
    model = drawn(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3, 4] x) => (float[2, 3, 3] y) <float[4, 4] w, float[3, 3] mask, float[3, 3] v> {
          a = MatMul (x, w)
          t = Transpose <perm = [0, 2, 1]> (a)
          s = MatMul (a, t)
          m = Add (s, mask)
          p = Softmax (m)
          y = MatMul (p, v)
        }
        """
    )
    mask = next(t for t in model.graph.initializer if t.name == "mask")
    assert set(weights(model.graph).trained) == {"w", "mask", "v"}
    mask.CopyFrom(numpy_helper.from_array(np.triu(np.full((3, 3), -1e9, np.float32), 1), "mask"))
    assert set(weights(model.graph).trained) == {"w", "v"}
