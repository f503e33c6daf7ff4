"""The error between two models: zero only when they are equal, and as large as the difference says."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import helper, parser
from onnx_prune.runtime.proof.compare import Proof, max_relative_error, output_error


def scaled(factor: float, outputs: str = "float[N, 3] y") -> onnx.ModelProto:
    return parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 3] x) => ({outputs})
    {{ f = Constant<value_float={factor!r}>()  y = Mul(x, f)  z = Relu(x) }}
    """)


FEEDS = [{"x": np.array([[1, -2, 3]], np.float32)}, {"x": np.array([[4, 5, 6], [0, 0, 0]], np.float32)}]


def test_a_model_equals_itself_exactly():
    assert max_relative_error(scaled(2.0), scaled(2.0), FEEDS) == Proof(0.0, "y", 2)


def test_the_error_is_relative_to_the_largest_value_of_the_second():
    proof = max_relative_error(scaled(3.0), scaled(2.0), FEEDS)
    assert proof == Proof(0.5, "y", 2)
    assert max_relative_error(scaled(2.0), scaled(4.0), FEEDS).error == 0.5


def test_the_worst_output_is_named():
    both = "float[N, 3] z, float[N, 3] y"
    assert max_relative_error(scaled(2.5, both), scaled(2.0, both), FEEDS).output == "y"


def test_an_output_that_one_model_lacks_is_an_infinite_error():
    both = "float[N, 3] y, float[N, 3] z"
    assert max_relative_error(scaled(2.0), scaled(2.0, both), FEEDS) == Proof(math.inf, "z", 2)
    assert max_relative_error(scaled(2.0, both), scaled(2.0), FEEDS) == Proof(math.inf, "z", 2)


def test_no_feeds_prove_nothing_and_say_so():
    assert max_relative_error(scaled(2.0), scaled(3.0), []) == Proof(0.0, "", 0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("value", "reference", "error"),
    [
        ([0.0, 1.0], [0.0, 1.0], 0),
        ([0.0, 0.0], [0.0, 0.25], None),
        ([math.nan, math.inf, 2.0], [math.nan, math.inf, 2.0], 0),
        ([math.nan], [math.nan], 0),
        ([math.nan, 1.0], [1.0, 1.0], math.inf),
        ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
        ([math.inf, 1.0], [math.nan, 1.0], math.inf),
        ([1.0, 2.0], [[1.0, 2.0]], math.inf),
        ([], [], 0),
        ([1, 2, 3, 4], [1, 2, 3, 5], 0.25),
        ([True, False], [False, False], 0.5),
        (["a", "b"], ["a", "c"], 0.5),
        ([1], [1.0], math.inf),
    ],
)
def test_output_errors(value, reference, error, reverse):
    a, b = np.array(value), np.array(reference)
    if error is None:
        assert (output_error(b, a), output_error(a, b)) == (0.25, 1.0)
    else:
        assert output_error(*((b, a) if reverse else (a, b))) == error


def test_half_precision_is_compared_in_double():
    for kind in (np.float16, helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)):
        a = np.array([1.0, 2.0], kind)
        assert output_error(a, a) == 0
        assert output_error(a, 2 * a) == 0.5


def test_sequences_and_maps_count_their_worst_member():
    one, two = np.array([1.0]), np.array([2.0])
    assert output_error([one, two], [one, two]) == 0
    assert output_error([one, two], [one, one]) == 1
    assert output_error([one], [one, one]) == math.inf
    assert output_error([{1: 0.5}], [{1: 0.5}]) == 0
    assert output_error([{1: 0.5}], [{1: 1.0}]) == 0.5
    assert output_error([{1: 0.5}], [{2: 0.5}]) == math.inf


def test_a_sequence_output_is_compared():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[4] x) => (seq(float[?]) y) { p = ACTIVATION(x)  y = SplitToSequence(p) }
    """
    relu, absolute = (parser.parse_model(text.replace("ACTIVATION", op)) for op in ("Relu", "Abs"))
    feeds = [{"x": np.array([1, 2, 3, 4], np.float32)}]
    assert max_relative_error(relu, absolute, feeds).error == 0
    assert max_relative_error(relu, absolute, [{"x": -feeds[0]["x"]}]).error == 1
