"""Every reference network: valid, alive, and as large as its paper says."""

import functools
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto
from onnx_prune import models

LEAN = {  # builders and arguments that keep the file quick; the large maps are only shape-inferred below
    "lenet5": models.lenet5,
    "vgg16_cifar": models.vgg16_cifar,
    "resnet20": functools.partial(models.resnet_cifar, 20),
    "resnet56": models.resnet_cifar,
    "resnet56 B": functools.partial(models.resnet_cifar, 56, "B"),
    "resnet110": functools.partial(models.resnet_cifar, 110),
    "resnet34": functools.partial(models.resnet34, 10, 64),
    "resnet50": functools.partial(models.resnet50, 10, 64),
    "resnet50 v1": functools.partial(models.resnet50, 10, 64, stride_in_1x1=True),
    "mobilenet_v1": functools.partial(models.mobilenet_v1, 10, 64),
    "mobilenet_v2": functools.partial(models.mobilenet_v2, 10, 64),
    "densenet40": models.densenet40,
    "unet": models.unet,
    "digits_resnet": models.digits_resnet,
}


def shapes(model):
    """Shapes of all values, the batch axis set to 1."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        found[value.name] = tuple(axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim)
    return found


def macs(model):
    """Multiply-accumulates of Conv, ConvTranspose and Gemm at batch 1: weight elements x places where each is used."""
    shape, total = shapes(model), 0
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm", "ConvTranspose"}:
            places = shape[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
            total += math.prod(shape[node.input[1]]) * math.prod(places[2:])
    return total


def trained_parameters(model):
    """Elements of the initializers that training moves: weights and biases."""
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.name.endswith((".weight", ".bias")))


def random_logits(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = (3, *session.get_inputs()[0].shape[1:])
    images = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    return np.asarray(session.run(None, {"input": images})[0])


@pytest.mark.parametrize("name", LEAN)
def test_network_is_valid_and_its_logits_depend_on_the_image_and_stay_in_range(name):
    model = LEAN[name]()
    onnx.checker.check_model(model, full_check=True)
    logits = random_logits(model)
    assert 0.1 < logits.std() < 1000
    assert logits.std(axis=0).mean() > 0.005 * logits.std()


@pytest.mark.parametrize(
    "name", ["vgg16_cifar", "resnet20", "resnet56 B", "resnet34", "resnet50", "mobilenet_v1", "unet"]
)
def test_folded_network_has_the_same_macs_and_no_batch_norm(name):
    plain, folded = LEAN[name](), LEAN[name](folded=True)
    assert macs(folded) == macs(plain)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph.node}


@pytest.mark.parametrize(
    ("build", "millions", "parameters"),
    [
        (models.lenet5, 2.293, 431_080),  # Caffe's LeNet-5
        (models.vgg16_cifar, 313.46, 14_987_210),  # Li et al.: 3.13e8 and 1.5e7
        (functools.partial(models.resnet_cifar, 20), 40.55, 269_722),  # akamaster/pytorch_resnet_cifar10
        (functools.partial(models.resnet_cifar, 56), 125.49, 853_018),
        (functools.partial(models.resnet_cifar, 110), 252.89, 1_727_962),
        (models.resnet34, 3663.76, 21_797_672),  # torchvision, as the next and MobileNetV2
        (models.resnet50, 4089.18, 25_557_032),
        (functools.partial(models.resnet50, stride_in_1x1=True), 3857.97, 25_557_032),
        (models.mobilenet_v1, 568.74, 4_231_976),
        (models.mobilenet_v2, 300.77, 3_504_872),
        (models.densenet40, 264.81, 1_019_722),  # 1.0 M in the paper, which gives no MACs
        (functools.partial(models.densenet40, 24), 282.92, 1_059_298),  # HRank: 282.92 M
    ],
)
def test_macs_and_parameters_are_those_of_the_literature(build, millions, parameters):
    model = build()
    assert macs(model) / 1e6 == pytest.approx(millions, abs=0.006)
    assert trained_parameters(model) == parameters


@pytest.mark.shared
@pytest.mark.parametrize("depth", [20, 56])
def test_resnet_cifar_computes_what_the_exported_network_of_the_same_weights_does(depth):
    path = Path(__file__).parents[3] / f"shared/models/resnet{depth}-cifar10-bn.onnx"
    if not path.exists():
        pytest.skip("no shared/ beside the checkout")
    exported, built = onnx.load(path), models.resnet_cifar(depth)
    names = {tensor.name for tensor in built.graph.initializer}
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in exported.graph.initializer if t.name in names}
    logits, expected = random_logits(models.with_initializers(built, weights)), random_logits(exported)
    assert np.abs(logits - expected).max() <= 2e-6 * np.abs(expected).max()
    assert np.abs(random_logits(built) - expected).max() > 0.1 * np.abs(expected).max()


def test_mac_counter_sees_one_channel_less():
    def one_conv(channels):
        net = models.NetBuilder("one_conv", (3, 8, 8))
        return net.model(net.conv(net.input, "conv", channels, 1))

    assert (macs(one_conv(4)), macs(one_conv(3))) == (768, 576)


def test_imagenet_vgg_flattens_512_maps_of_7x7_into_its_classifier():
    model = models.vgg16_imagenet(hidden=8)  # 4096 would be 553 MB
    convolutions = macs(model) - (25088 * 8 + 8 * 8 + 8 * 1000)
    assert shapes(model)["classifier.0.weight"] == (8, 25088)
    assert convolutions + 25088 * 4096 + 4096 * 4096 + 4096 * 1000 == 15_470_264_320  # 15.47 G MACs
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 1000


def test_option_a_shortcut_is_a_strided_slice_between_equal_paddings_of_zero_channels():
    model = models.resnet_cifar(20)
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert held["layer2.0.shortcut.pad.pads"].tolist() == [0, 8, 0, 0, 0, 8, 0, 0]
    assert held["layer3.0.shortcut.slice.steps"].tolist() == [2, 2]
    assert shapes(model)["layer3.0.shortcut.pad"] == (1, 64, 8, 8)


def test_stride_of_resnet50_stands_in_the_3x3_unless_asked_for_in_the_1x1():
    def strides(model):
        found = {
            node.name: onnx.helper.get_node_attr_value(node, "strides")
            for node in model.graph.node
            if "conv" in node.name
        }
        return found["layer2.0.conv1"][0], found["layer2.0.conv2"][0]

    assert strides(LEAN["resnet50"]()) == (1, 2)
    assert strides(LEAN["resnet50 v1"]()) == (2, 1)


def test_unet_gives_one_logit_a_class_and_pixel():
    assert shapes(models.unet(3, 32))["logits"] == (1, 3, 32, 32)


def test_weights_are_float32_and_everything_else_int64():
    assert {t.data_type for t in models.resnet_cifar(20).graph.initializer} == {TensorProto.FLOAT, TensorProto.INT64}
