"""The builder: seeded weights, exact folding, and initializers written by name."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx_prune.models import NetBuilder, digits_resnet, mobilenet_v2, with_initializers


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": images})[0])


def images(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def weights(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def relative_difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def every_layer():
    """Every method of the builder in one small network."""
    net = NetBuilder("every_layer", (2, 12, 12))
    x = net.relu(net.conv(net.input, "conv", 4, norm="bn"), "relu")
    x = net.max_pool(net.relu6(net.conv(x, "dw", 4, groups=4), "relu6"), "max", 3, 2, 1)
    y = net.pad_channels(net.subsample(x, "sub"), "pad", 1, 1)
    x = net.add(y, net.conv(x, "down", 6, 1, 2, bias=False), "add")
    x = net.concat([net.conv_transpose(x, "up", 3), net.conv_transpose(x, "up2", 2)], "concat")
    x = net.average_pool(net.batch_norm(x, "bn2"), "average", 3)
    x = net.add(net.global_average_pool(x, "gap"), net.conv(x, "valid", 5, 2, padding=0), "sum")
    return net.model(net.gemm(net.flatten(x, "flatten"), "fc", 3, norm="bn3"))


def test_every_layer_has_the_shape_that_shape_inference_finds():
    model = every_layer()
    onnx.checker.check_model(model, full_check=True)
    assert run(model, images(5, 2, 12, 12)).shape == (5, 3)


def test_interface_is_input_to_logits_with_a_free_batch_axis():
    graph = digits_resnet().graph
    shapes = [
        (value.name, [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim])
        for value in (*graph.input, *graph.output)
    ]
    assert shapes == [("input", ["N", 1, 8, 8]), ("logits", ["N", 10])]


def test_parameters_bear_module_paths():
    names = {name.removeprefix("layer1.0.") for name in weights(digits_resnet()) if name.startswith("layer1.0.")}
    norm = {"weight", "bias", "running_mean", "running_var"}
    assert names == {f"conv{i}.weight" for i in (1, 2)} | {f"bn{i}.{part}" for i in (1, 2) for part in norm}


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, again, other = (digits_resnet(seed=seed).SerializeToString(deterministic=True) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_folding_keeps_the_function_and_leaves_no_batch_norm():
    plain, folded = (mobilenet_v2(10, 32, folded=folded) for folded in (False, True))
    x = images(2, 3, 32, 32)
    assert {node.op_type for node in plain.graph.node} - {node.op_type for node in folded.graph.node} == {
        "BatchNormalization"
    }
    assert relative_difference(run(folded, x), run(plain, x)) < 1e-5


@pytest.mark.parametrize("part", ["weight", "bias", "running_mean", "running_var"])
def test_folding_oracle_sees_a_change_of_any_batch_norm_parameter(part):
    plain, x = digits_resnet(), images(2, 1, 8, 8)
    name = f"layer2.0.bn1.{part}"
    changed = with_initializers(plain, {name: weights(plain)[name] + np.float32(0.1)})
    assert relative_difference(run(changed, x), run(digits_resnet(folded=True), x)) > 1e-3


def test_with_initializers_writes_by_name_and_leaves_the_given_model_alone():
    model = digits_resnet()
    before = model.SerializeToString(deterministic=True)
    bias = np.arange(10, dtype=np.float32)
    changed = weights(with_initializers(model, {"fc.bias": bias}))
    assert np.array_equal(changed.pop("fc.bias"), bias)
    assert all(np.array_equal(value, weights(model)[name]) for name, value in changed.items())
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fc.scale", np.zeros(10, np.float32), "nothing of that name"),
        ("fc.bias", np.zeros(9, np.float32), r"FLOAT \[10\] of that name"),
        ("fc.bias", np.zeros(10), r"fc\.bias as DOUBLE \[10\]"),
    ],
)
def test_with_initializers_refuses_what_does_not_fit(name, value, message):
    with pytest.raises(ValueError, match=message):
        with_initializers(digits_resnet(), {name: value})
