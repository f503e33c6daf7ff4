"""How near a model is to the original: bounded a sample, and able to tell."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.passes.graph.model import load
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.closeness import closeness


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
