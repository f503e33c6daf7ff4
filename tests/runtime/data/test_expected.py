"""Data that are not prepared as in training are told by the statistics that the network stores."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.graph.model import load
from onnx_prune.pipeline.prune import prune
from onnx_prune.runtime.data.expected import doubt
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data


@pytest.fixture(scope="module")
def digits():
    """The trained network and images as it was trained on."""
    graph = load(digits_model())
    _, calibration = digits_data()
    data = open_data(calibration, model_inputs(graph.source), samples=32)
    return graph, np.concatenate([batch.feeds["input"] for batch in data])


def of(graph, images):
    return doubt(graph, open_data({"input": images.astype(np.float32)}, model_inputs(graph.source)))


def test_the_right_images_raise_no_doubt(digits):
    graph, images = digits
    for few in (images, images[:4], images[:, :, ::-1], images * 1.2 + 0.1):
        assert of(graph, few) is None


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x * 255, lambda x: x / 20, lambda x: x * 0, lambda x: x * 20 - 10],
    ids=["pixels of 0 to 255", "twentieths", "black", "another range"],
)
def test_images_in_another_form_are_doubted(digits, wrong):
    graph, images = digits
    assert "not trained on: variance" in (of(graph, wrong(images)) or "")


def test_too_few_images_tell_nothing(digits):
    graph, images = digits
    assert of(graph, images[:3] * 255) is None


def test_the_report_says_it(digits):
    graph, images = digits
    wrong = {"input": (images * 255).astype(np.float32)}
    assert "not trained on" in (prune(graph.source, calibration=wrong, measure=False).report.doubt or "")
    assert prune(graph.source, calibration={"input": images}, measure=False).report.doubt is None
