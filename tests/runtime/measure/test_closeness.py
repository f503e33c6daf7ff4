"""How near a model is to the original: bounded a sample, and able to tell."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.passes.graph.model import load
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.closeness import closeness

RNG = np.random.default_rng(0)


@pytest.fixture
def digits():
    return load(models.digits_model()).source


@pytest.fixture
def data(digits):
    return open_data(str(models.digits_data()[0]), model_inputs(digits), samples=64)


def scaled(model, factor):
    """The model with all its weights of more than one axis times a factor."""
    other = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in other.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return other


def test_a_model_is_at_no_distance_from_itself_and_others_are_farther(digits, data):
    itself, near, flipped = closeness(digits, [digits, scaled(digits, 1.01), scaled(digits, -1)], data)
    assert (itself.distance, itself.same_class, itself.samples) == (0.0, 1.0, 64)
    assert 0 < near.distance < 0.1 < flipped.distance <= 1
    assert flipped.same_class < 0.5 < near.same_class


def test_outputs_that_are_not_finite_are_as_far_as_can_be(digits, data):
    (broken,) = closeness(digits, [scaled(digits, np.nan)], data)
    assert broken.distance == 1


def test_an_output_of_large_numbers_does_not_hide_another():
    x = [Batch({"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}, None)]

    def two(large, small):
        text = "g (float[N, 4] x) => (float[N, 4] a, float[N, 4] b) { a = Mul (x, l) b = Mul (x, s) }"
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
        values = {"l": large, "s": small}
        model.graph.initializer.extend(numpy_helper.from_array(np.float32(v), k) for k, v in values.items())
        return model

    one, other, both = closeness(two(1e6, 1), [two(1e6, 0), two(0, 1), two(0, 0)], x)
    np.testing.assert_allclose([one.distance, other.distance, both.distance], [0.5, 0.5, 1])
    zero = closeness(two(0, 1), [two(0, 1.1)], x)[0]  # what is zero and stays zero says nothing
    np.testing.assert_allclose(zero.distance, 0.01, rtol=1e-4)


def network(tail, outputs):
    """Three numbers a sample, times a weight, and what comes of them."""
    text = f"g (float[N, 3] x) => ({outputs}) {{ z = MatMul (x, w) {tail} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')

    def of(weight):
        made = onnx.ModelProto.FromString(model.SerializeToString())
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(weight, np.float32), "w"))
        made.graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "k"))
        return made

    return of


TAILS = {
    "an index": ("y = ArgMax <axis = 1> (z)", "int64[N, 1] y"),
    "an index that is cast": ("a = ArgMax <axis = 1> (z) y = Cast <to = 6> (a)", "int32[N, 1] y"),
    "the places of the largest": ("v, y = TopK (z, k)", "int64[N, 2] y"),
    "truth values": ("s = Sub (z, z) y = Greater (z, s)", "bool[N, 3] y"),
    "pixels": ("a = Sigmoid (z) b = Add (a, a) c = Exp (b) y = Cast <to = 2> (c)", "uint8[N, 3] y"),
    "places of another number": ("r = Relu (z) y = NonZero (r)", "int64[2, M] y"),
}


@pytest.mark.parametrize("tail", TAILS)
def test_models_that_say_integers_alone_are_told_apart(tail):
    of, data = network(*TAILS[tail]), [Batch({"x": RNG.standard_normal((64, 3)).astype(np.float32)}, None)]
    near, far = np.eye(3) + 0.05 * RNG.standard_normal((3, 3)), RNG.standard_normal((3, 3))
    itself, one, other = closeness(of(np.eye(3)), [of(np.eye(3)), of(near), of(far)], data)
    assert itself.distance == 0
    assert one.distance <= other.distance
    assert other.distance > 0
