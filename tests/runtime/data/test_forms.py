"""Networks without statistics of their training tell by their outputs whether images are in the form they know."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.graph.model import load
from onnx_prune.pipeline.prune import prune
from onnx_prune.runtime.data.expected import doubt
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """The trained network of digits, its normalisations folded away, and images as it was trained on: grey, 0 to 1."""
    model = load(digits_model())
    _, calibration = digits_data()
    data = open_data(calibration, model_inputs(model.source), samples=64)
    images = np.concatenate([batch.feeds["input"] for batch in data])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path_factory.mktemp("folded") / "digits.onnx")
    onnxruntime.InferenceSession(model.source.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = onnx.load(options.optimized_model_filepath)
    assert "BatchNormalization" not in {node.op_type for node in found.graph.node}
    return found, images


def channels_last(model):
    """The same network of images (n, height, width, channels)."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    given = changed.graph.input[0]
    name, dims = given.name, given.type.tensor_type.shape.dim
    sizes = [dim.dim_value or dim.dim_param for dim in dims]
    for each in changed.graph.node:
        each.input[:] = ["moved" if read == name else read for read in each.input]
    changed.graph.node.insert(0, helper.make_node("Transpose", [name], ["moved"], perm=[0, 3, 1, 2]))
    given.CopyFrom(helper.make_tensor_value_info(name, 1, [sizes[0], *sizes[2:], sizes[1]]))
    return changed


def of_batches(model, size):
    """The same network of a fixed batch."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    changed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = size
    return changed


def of(model, images):
    graph = load(model)
    return doubt(graph, open_data({"input": images.astype(np.float32)}, model_inputs(graph.source)))


WRONG = {
    "pixels of 0 to 255": lambda x: x * 255,
    "pixels of -1 to 1": lambda x: x * 2 - 1,
    "normalised, where it was not": lambda x: (x - 0.449) / 0.226,
    "a mean taken from pixels of 0 to 255": lambda x: x * 255 - 114,
}


@pytest.mark.parametrize("kind", WRONG)
def test_images_in_another_form_are_doubted_and_the_better_form_is_named(folded, kind):
    model, images = folded
    told = of(model, WRONG[kind](images)) or ""
    assert "tells these images apart better with pixels of 0 to 1" in told


@pytest.mark.parametrize("kind", ["pixels of 0 to 255", "pixels of -1 to 1"])
def test_so_they_are_with_channels_last_and_in_fixed_batches(folded, kind):
    model, images = folded
    wrong = WRONG[kind](images)
    assert "pixels of 0 to 1" in (of(channels_last(model), wrong.transpose(0, 2, 3, 1)) or "")
    assert "pixels of 0 to 1" in (of(of_batches(model, 8), wrong) or "")


def test_the_right_images_raise_no_doubt(folded):
    model, images = folded
    for few in (images, images[:8], images[:, :, ::-1], images * 1.2, images[::2] * 0.8 + 0.1):
        assert of(model, few) is None
    assert of(channels_last(model), images.transpose(0, 2, 3, 1)) is None
    assert of(of_batches(model, 8), images) is None


def test_noise_constants_and_a_handful_tell_nothing(folded):
    model, images = folded
    for numbers in (np.zeros_like(images), np.random.default_rng(0).standard_normal(images.shape), images[:7] * 255):
        assert of(model, numbers) is None


def test_the_report_says_it(folded):
    model, images = folded
    wrong = {"input": (images * 255).astype(np.float32)}
    assert "tells these images apart better" in (prune(model, calibration=wrong, measure=False).report.doubt or "")
