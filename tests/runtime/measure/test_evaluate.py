"""Accuracy and divergence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.data.preprocess import Preprocessing
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.evaluate import accuracy, compare_outputs, divergence, outputs


def model(operation: str, dims: str = "N,K") -> onnx.ModelProto:
    interface = f"g (float[{dims}] x) => (float[{dims}] y)"
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {interface} {{ y = {operation} }}')


IDENTITY, SOFTMAX, TWICE, MAP = (
    model("Identity(x)"),
    model("Softmax(x)"),
    model("Add(x, x)"),
    model("Add(x, x)", "N,C,H"),
)


def batches(x, labels=None, size=3):
    x = np.asarray(x, np.float32)
    return [
        Batch({"x": x[i : i + size]}, None if labels is None else np.asarray(labels)[i : i + size])
        for i in range(0, len(x), size)
    ]


def test_top1_and_top5_count_as_argmax_does():
    x = np.eye(8)[[0, 1, 2, 3]] * 9 + np.arange(8)  # sample i: class i first, then 7, 6, 5, 4
    result = accuracy(IDENTITY, batches(x, [0, 7, 4, 1]))
    assert (result.top1, result.top5, result.samples) == (0.25, 0.75, 4)
    assert accuracy(IDENTITY, batches(np.zeros((4, 8)), [0, 1, 4, 5])).top1 == 0.25
    assert accuracy(IDENTITY, batches(np.full((4, 8), np.nan), [0, 1, 4, 5])).top5 == 0


@pytest.mark.parametrize(
    ("net", "data"),
    [
        (IDENTITY, batches(np.zeros((2, 3)))),
        (IDENTITY, batches(np.zeros((2, 3)), [0, 3])),
        (IDENTITY, []),
        (MAP, batches(np.zeros((2, 3, 4)), [0, 1])),
    ],
)
def test_labels_that_are_missing_or_unknown_are_refused(net, data):
    with pytest.raises(UsageError):
        accuracy(net, data)


def test_the_divergence_of_classifiers_is_kl_of_the_softmax():
    x = np.random.default_rng(0).standard_normal((7, 5))
    data = batches(x)
    result = divergence(TWICE, outputs(IDENTITY, data), data)
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (x, 2 * x))
    assert (result.kind, result.samples) == ("kl", 7)
    assert result.value == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-5)
    assert result.outputs == {"y": result.value}
    assert divergence(IDENTITY, list(outputs(IDENTITY, data)), data).value < 1e-12


def test_probabilities_are_not_normalised_again():
    data = batches(np.random.default_rng(0).standard_normal((7, 5)))
    assert divergence(SOFTMAX, outputs(IDENTITY, data), data).value < 1e-6


def test_other_outputs_are_compared_by_their_relative_squares():
    data = batches(np.random.default_rng(0).standard_normal((4, 5, 2)))
    halves = [{"y": b.feeds["x"]} for b in data]
    result = divergence(MAP, halves, data)
    assert (result.kind, result.value) == ("relative mse", pytest.approx(1))


def test_logits_are_compared_up_to_a_constant_and_probabilities_as_their_logarithms():
    rng = np.random.default_rng(0)
    reference, other = rng.normal(size=(2, 5, 4))
    shifted = other + np.arange(5)[:, None]
    softmax = [{"p": np.exp(x) / np.exp(x).sum(1, keepdims=True)} for x in (reference, other)]
    by_logits = [
        compare_outputs([{"y": reference}], [{"y": y}], [5], logits=True) for y in (other, shifted, reference + 1)
    ]
    a, b = (x - x.mean(1, keepdims=True) for x in (reference, other))
    assert by_logits[0].kind == "relative mse"
    np.testing.assert_allclose(by_logits[0].value, np.square(b - a).sum() / np.square(a).sum())
    np.testing.assert_allclose(by_logits[1].value, by_logits[0].value)
    np.testing.assert_allclose(by_logits[2].value, 0, atol=1e-12)
    by_probabilities = compare_outputs([softmax[0]], [softmax[1]], [5], logits=True)
    np.testing.assert_allclose(by_probabilities.value, by_logits[0].value)
    assert np.isfinite(compare_outputs([softmax[0]], [{"p": np.eye(4)[[0] * 5]}], [5], logits=True).value)


def test_models_of_another_interface_are_refused():
    data = batches(np.zeros((2, 3)))
    with pytest.raises(UsageError, match="no output"):
        divergence(IDENTITY, [{"z": np.zeros((2, 3))}], data)


def test_the_demo_model_has_the_accuracy_that_it_was_trained_to():
    data = open_data(digits_data()[0], model_inputs(onnx.load(digits_model())))
    seen = []
    result = accuracy(digits_model(), data, progress=lambda done, of: seen.append(done))
    assert result.top1 > 0.97
    assert seen[-1] == result.samples == data.samples


@pytest.mark.shared
def test_resnet20_on_2000_cifar_images_is_as_published(shared):
    net = shared / "models/resnet20-cifar10.onnx"
    how = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    data = open_data(shared / "data/cifar10-test.zip", model_inputs(onnx.load(net)), how, samples=2000)
    assert accuracy(net, data).top1 == pytest.approx(0.9173, abs=0.015)


def test_what_is_no_number_in_the_reference_says_nothing():
    wanted, other = np.array([[1.0, np.nan, -2.0, np.inf]]), np.array([[1.5, 3.0, -2.0, np.nan]])
    found = compare_outputs([{"y": wanted}], [{"y": other}], [1], logits=True)
    plain = compare_outputs(
        [{"y": np.nan_to_num(wanted, posinf=0)}], [{"y": np.array([[1.5, 0, -2, 0]])}], [1], logits=True
    )
    assert found.value == plain.value
    assert 0 < found.value < 1
    lost = compare_outputs([{"y": wanted}], [{"y": wanted * np.nan}], [1], logits=True)
    assert lost.value == 1
