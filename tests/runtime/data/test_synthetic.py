"""Synthetic images: what they look like, which models get them, and that a refit on them helps."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_prune
import onnx_prune.pipeline.read
import pytest
from onnx_prune import models
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.data.preprocess import Preprocessing
from onnx_prune.runtime.data.random_feeds import sample_feeds
from onnx_prune.runtime.data.synthetic import dead_leaves, reads_images, synthetic_data
from onnx_prune.runtime.measure.evaluate import accuracy, divergence, outputs


def copying(shape, kind=onnx.TensorProto.FLOAT):
    """A model that returns its input."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:]))


def images_for(model, preprocessing=None, samples=4):
    data = synthetic_data(model_inputs(model), sample_feeds(model), preprocessing, samples)
    return np.concatenate([batch.feeds["x"] for batch in data])


def test_they_are_standardised_and_their_neighbours_are_alike_over_all_scales():
    images = dead_leaves((64, 3, 32, 32))
    assert images.dtype == np.float32
    assert abs(images.mean()) < 1e-3
    assert abs(images.std() - 1) < 1e-3
    flat = images - images.mean()
    alike = [(flat[..., d:] * flat[..., :-d]).mean() for d in (1, 4, 12)]
    assert alike[0] > 0.7 > alike[1] > alike[2] > 0.1  # noise has none at any distance
    assert np.corrcoef(images[:, 0].ravel(), images[:, 1].ravel())[0, 1] > 0.7  # channels differ, but not much


def test_the_same_seed_gives_the_same_images():
    np.testing.assert_array_equal(dead_leaves((3, 1, 9, 17), 5), dead_leaves((3, 1, 9, 17), 5))
    assert (dead_leaves((3, 1, 9, 17), 5) != dead_leaves((3, 1, 9, 17), 6)).any()


@pytest.mark.parametrize(
    ("shape", "kind", "wanted"),
    [
        (["N", 3, 8, 8], onnx.TensorProto.FLOAT, True),
        (["N", 8, 8, 3], onnx.TensorProto.FLOAT, True),
        (["N", 1, 8, 8], onnx.TensorProto.UINT8, True),
        (["N", 4, 8, 8], onnx.TensorProto.FLOAT, False),
        (["N", 16], onnx.TensorProto.FLOAT, False),
        (["N", 3, 8, 8], onnx.TensorProto.INT64, False),
    ],
)
def test_which_models_read_images(shape, kind, wanted):
    model = copying(shape, kind)
    assert reads_images(model_inputs(model), sample_feeds(model)) is wanted


def test_they_come_in_the_layout_type_and_range_of_the_model():
    assert images_for(copying(["N", 3, 8, 12])).shape == (4, 3, 8, 12)
    assert images_for(copying(["N", 8, 12, 3])).shape == (4, 8, 12, 3)
    bytes_ = images_for(copying(["N", 1, 8, 12], onnx.TensorProto.UINT8))
    assert bytes_.dtype == np.uint8
    assert bytes_.std() > 20
    pixels = images_for(copying(["N", 3, 8, 12]), Preprocessing())
    assert (0 <= pixels.min() < 0.3, 0.7 < pixels.max() <= 1) == (True, True)
    normalised = images_for(copying(["N", 3, 8, 12]), Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 1.0)))
    np.testing.assert_allclose(normalised[:, 2], pixels[:, 2] - 0.3, atol=1e-5)


def test_a_bare_run_on_a_model_of_images_refits_on_them_and_is_nearer_to_the_original():
    model = onnx.load(models.digits_model())
    test = open_data(str(models.digits_data()[0]), model_inputs(model))
    reference = list(outputs(model, test))
    drawn = onnx_prune.prune(model, measure=False)
    weights = onnx_prune.prune(model, measure=False, calibration="none")
    assert (drawn.report.data, weights.report.data) == ("512 synthetic images", None)
    assert (drawn.plan.criterion, drawn.plan.reconstruct) == ("obs", "sequential")
    assert (weights.plan.criterion, weights.plan.reconstruct) == ("l2", "none")
    kl = [divergence(result.model, reference, test).value for result in (drawn, weights)]
    assert kl[0] < 0.5 * kl[1]
    assert accuracy(drawn.model, test).top1 > accuracy(weights.model, test).top1


def test_who_names_a_criterion_of_weights_gets_weights_alone():
    result = onnx_prune.prune(onnx.load(models.digits_model()), measure=False, criterion="l1")
    assert result.report.data is None
    assert result.plan.reconstruct == "none"


def test_a_large_model_gets_them_only_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(onnx_prune.pipeline.read, "_SYNTHETIC_MACS", 1 << 20)
    model = onnx.load(models.digits_model())
    assert onnx_prune.prune(model, measure=False).report.data is None
    asked = onnx_prune.prune(model, measure=False, calibration="synthetic", allocation="uniform")
    assert asked.report.data == "64 synthetic images"


def test_a_model_without_images_is_cut_by_its_weights_and_refuses_synthetic_ones():
    weight = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "a"], ["h"]),
        onnx.helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 16]) for name in "xy"]
    constants = [onnx.numpy_helper.from_array(weight, name) for name in "ab"]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", values[:1], values[1:], constants),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert onnx_prune.prune(model, measure=False).report.data is None
    with pytest.raises(UsageError, match="does not read images"):
        onnx_prune.prune(model, measure=False, calibration="synthetic")
