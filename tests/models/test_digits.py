"""The trained demo: its files, its accuracy, and that its images do not overlap."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx_prune.models import digits_data, digits_model, digits_resnet, with_initializers


def arrays(path):
    with np.load(path, allow_pickle=False) as data:
        return data["input"], data["label"]


def accuracy(model, images, labels):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return (np.asarray(session.run(None, {"input": images})[0]).argmax(1) == labels).mean()


def test_demo_model_is_98_percent_right_on_images_it_never_saw():
    assert accuracy(onnx.load(digits_model()), *arrays(digits_data()[0])) >= 0.98


def test_accuracy_of_the_untrained_network_is_chance():
    assert accuracy(digits_resnet(), *arrays(digits_data()[0])) < 0.3


def test_demo_model_is_the_builder_s_graph_with_other_weights():
    trained = onnx.load(digits_model())
    onnx.checker.check_model(trained, full_check=True)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in trained.graph.initializer}
    assert with_initializers(digits_resnet(), values) == trained


@pytest.mark.parametrize(("path", "images"), list(zip(digits_data(), (360, 400), strict=True)))
def test_demo_data_is_class_balanced_and_keyed_by_the_model_s_input(path, images):
    inputs, labels = arrays(path)
    assert (inputs.dtype, inputs.shape) == (np.float32, (images, 1, 8, 8))
    assert (labels.dtype, labels.shape) == (np.int64, (images,))
    assert (inputs.min(), inputs.max()) == (0, 1)
    counts = np.bincount(labels, minlength=10)
    assert counts.max() - counts.min() <= images // 50


def test_no_test_image_is_a_calibration_image():
    test, calibration = ({image.tobytes() for image in arrays(path)[0]} for path in digits_data())
    assert not test & calibration


def test_demo_is_under_two_megabytes():
    assert sum(path.stat().st_size for path in (digits_model(), *digits_data())) < 2_000_000
