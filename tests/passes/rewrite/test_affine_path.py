"""How far behind a layer its output is still an affine function of it, and which activation follows there."""

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from onnx_prune.passes.algebra.layer.activation_functions import Clipped, Smooth, elu, gated, leaky, sigmoid
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.rewrite.affine_path import AffinePaths
from onnx_prune.runtime.session import open_session

N = 4


def network(body, **constants):
    """y = body of c = Conv(x), with constants of four channels."""
    text = f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 5, 5] x, float[1, 4, 5, 5] s) => (float[1, 4, 5, 5] y) {{ c = Conv (x, w) {body} }}
    """
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    values = {"w": rng.standard_normal((N, 3, 1, 1)), **constants}
    kept = {
        k: np.asarray(v) if getattr(v, "dtype", np.dtype("f")).kind in "iu" else np.asarray(v, np.float32)
        for k, v in values.items()
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in kept.items())
    return model


def path_of(model, may_add=lambda name: name == "s"):
    return AffinePaths(load(model))("c", (4, 1, N), may_add)


NORM = {"g": [1, 2, -3, 0.5], "b": [0, 1, 2, 3], "m": [1, 1, 0, 2], "v": [1, 4, 9, 0.25]}
COLUMN = np.array([2.0, -1.0, 4.0, 0.5]).reshape(N, 1, 1)
BODIES = {
    "batch norm": ("n = BatchNormalization (c, g, b, m, v) y = Relu (n)", NORM, "n"),
    "products and sums": (
        "p = Mul (k, c) q = Div (p, k) r = Sub (q, k) t = Sub (k, r) u = Add (t, one) y = Relu (u)",
        {"k": COLUMN, "one": 1.5},
        "u",
    ),
    "nothing": ("i = Identity (c) d = Dropout (i) e = Cast <to = 1> (d) y = Relu (e)", {}, "e"),
    "a residual sum behind a norm": ("n = BatchNormalization (c, g, b, m, v) a = Add (s, n) y = Relu (a)", NORM, "a"),
    "a sum in front of a norm": ("a = Sub (s, c) n = BatchNormalization (a, g, b, m, v) y = Relu (n)", NORM, "n"),
    "three summands": ("a = Sum (s, c, k) y = Relu (a)", {"k": COLUMN}, "a"),
    "a layer scale that is reshaped": (
        "k4 = Unsqueeze (k1, at) p = Mul (c, k4) m = Neg (p) n = Sub (m, k4) y = Relu (n)",
        {"k1": [2.0, -1.0, 4.0, 0.5], "at": np.array([1, 2])},
        "n",
    ),
    "scales of quantisation": (
        "q = QuantizeLinear (c, fine, zero) d = DequantizeLinear (q, fine, zero) y = Relu (d)",
        {"fine": 1 / 64, "zero": np.uint8(128)},
        "d",
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_the_end_of_the_path_is_what_the_layer_makes_scaled_shifted_and_added_to(body):
    text, constants, end = BODIES[body]
    model = network(text, **constants)
    path = path_of(model)
    assert (path.tensor, path.activation) == (end, Clipped())
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in {"c", end})
    rng = np.random.default_rng(1)
    feeds = {
        v.name: rng.standard_normal([d.dim_value for d in v.type.tensor_type.shape.dim]) for v in model.graph.input
    }
    feeds = {name: array.astype(np.float32) / 8 for name, array in feeds.items()}
    found = open_session(model, optimise=False).run(feeds)
    column = (slice(None), None, None)
    expected = found["c"] * path.scale[column] + path.shift[column]
    for name, factor in path.summands:
        expected = expected + feeds[name] * factor[column]
    np.testing.assert_allclose(found[end], expected, atol=0.02 if "scales" in body else 1e-5)


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = Mul (c, s)", {}),  # a gate
        ("p = Mul (c, map) y = Relu (p)", {"map": np.ones((5, 5)) * 2}),  # not one number a channel
        ("p = Div (one, c) y = Relu (p)", {"one": 1.0}),
        ("d = Identity (c) a = Relu (c) y = Add (a, d)", {}),  # two readers
        ("p = Add (c, c) y = Relu (p)", {}),
        ("p = MaxPool <kernel_shape = [1, 1]> (c) y = Relu (p)", {}),
        ("p = Cast <to = 7> (c) q = Cast <to = 1> (p) y = Relu (q)", {}),
    ],
)
def test_a_path_ends_in_front_of_what_is_no_scale_a_channel(body, constants):
    path = path_of(network(body, **constants))
    assert path.tensor == "c"
    np.testing.assert_array_equal(path.scale, np.ones(N))


@pytest.mark.parametrize(
    ("zero", "bounds"), [(np.uint8(0), (0, 255 / 64)), (np.int8(-128), (0, 255 / 64)), (np.int8(127), (-255 / 64, 0))]
)
def test_integers_of_one_sign_are_the_activation_that_a_quantiser_has_left(zero, bounds):
    body = "q = QuantizeLinear (c, fine, zero) y = DequantizeLinear (q, fine, zero)"
    path = path_of(network(body, fine=1 / 64, zero=zero))
    assert (path.tensor, path.activation) == ("c", Clipped(*bounds))


def test_what_constants_blow_up_to_is_not_computed():
    body = (
        "a = Add (wide, long) p = Expand (wide, huge) t = ReduceMax <keepdims = 0> (a) u = ReduceMax <keepdims = 0> (p)"
    )
    body += " k = Add (t, u) y = Mul (c, k)"
    ones, huge = np.ones((1, 40000)), np.array([1 << 20, 1 << 20])
    path = path_of(network(body, wide=ones, long=ones.T, huge=huge))
    assert path.tensor == "c"


def test_a_path_ends_at_a_tensor_that_the_graph_gives_out():
    model = network("n = BatchNormalization (c, g, b, m, v) y = Relu (n)", **NORM)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("c"))
    assert path_of(model).tensor == "c"
    assert path_of(model).activation is None


def test_a_sum_with_what_is_not_known_yet_is_not_gone_through():
    model = network("a = Add (s, c) y = Relu (a)")
    assert path_of(model, lambda name: False).tensor == "c"


ACTIVATIONS = (
    "y = Relu (c)",
    "y = LeakyRelu <alpha = 0.1> (c)",
    "y = PRelu (c, slope)",
    "y = Clip (c, low, high)",
    "y = HardSigmoid (c)",
    "y = HardSwish (c)",
    "y = Sigmoid (c)",
    "y = Tanh (c)",
    "y = Elu (c)",
    "y = Selu (c)",
    "y = Celu <alpha = 0.5> (c)",
    "y = Softplus (c)",
    "h = Sigmoid (c) y = Mul (c, h)",
    "h = HardSigmoid <alpha = 0.16666667> (c) y = Mul (h, c)",
)


@pytest.mark.parametrize("body", ACTIVATIONS)
def test_activations_are_the_functions_of_onnx_runtime_in_units_of_their_steepest_slope(body):
    constants = {"slope": COLUMN / 8, "low": -1.0, "high": 2.0}
    model = network(body, **{k: v for k, v in constants.items() if k in body})
    activation = path_of(model).activation
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("c"))
    x = np.random.default_rng(2).standard_normal((1, 3, 5, 5)).astype(np.float32)
    found = open_session(model, optimise=False).run({"x": x, "s": np.zeros((1, N, 5, 5), np.float32)}, ["c", "y"])
    z, y = (found[name][0].reshape(N, -1).T for name in ("c", "y"))
    value = activation(z)
    slope, offset = np.polyfit(value.ravel(), y.ravel(), 1)  # clipped ones count in front of their scale
    np.testing.assert_allclose(slope * value + offset, y, atol=1e-4)
    line = np.linspace(-8, 8, 4001)[:, None] * np.ones(N)
    assert np.diff(activation(line), axis=0).max() == pytest.approx(16 / 4000, rel=0.02)


@pytest.mark.parametrize(
    "activation", [Clipped(), Clipped(-1, 2), leaky(0.2), elu(), gated(sigmoid()), Smooth(np.tanh)], ids=str
)
def test_following_the_targets_leads_to_the_values_of_the_original(activation):
    rng = np.random.default_rng(3)
    wanted, now = rng.standard_normal((2, 500, N)) * 2
    before = np.abs(activation(now) - activation(wanted)).mean()
    for _ in range(60):
        now = activation.target(now, wanted)
    assert np.abs(activation(now) - activation(wanted)).mean() < 0.2 * before
    np.testing.assert_allclose(activation.target(wanted, wanted), wanted)


def test_below_zero_of_a_relu_anything_below_zero_will_do():
    now, wanted = np.array([[-1.0, 2.0, -3.0]]), np.array([[-5.0, -5.0, 4.0]])
    np.testing.assert_array_equal(Clipped().target(now, wanted), [[-1.0, 0.0, 4.0]])
