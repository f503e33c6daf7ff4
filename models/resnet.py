"""ResNets. He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016.

CIFAR networks with the names of akamaster/pytorch_resnet_cifar10, ImageNet networks with those of torchvision.
"""

from collections.abc import Callable
from typing import Literal

import onnx

from .builder import NetBuilder, Tensor

Shortcut = Callable[[NetBuilder, Tensor, str, int, int], Tensor]  # (net, x, name, channels, stride) -> x, in new shape
Block = Callable[[NetBuilder, Tensor, str, int, int], Tensor]  # (net, x, name, width, stride) -> x

GAIN = 0.6  # of the initial weights: keeps 54 residual sums in range


def resnet_cifar(
    depth: Literal[20, 32, 44, 56, 110] = 56,
    shortcut: Literal["A", "B"] = "A",
    *,
    num_classes: int = 10,
    folded: bool = False,
    seed: int = 0,
) -> onnx.ModelProto:
    """ResNet of 6n + 2 layers on (N, 3, 32, 32): stages of n basic blocks with 16, 32 and 64 channels.

    shortcut, where the shape changes: A, every other pixel with channels of zeros around; B, a 1x1 convolution.
    """
    net = NetBuilder(f"resnet{depth}{shortcut.lower()}_cifar", (3, 32, 32), folded=folded, gain=GAIN, seed=seed)
    reshape = zero_pad_shortcut if shortcut == "A" else projection_shortcut("shortcut")
    x = net.relu(net.conv(net.input, "conv1", 16, norm="bn1"), "relu")
    x = stages(net, x, basic_block(reshape), [(depth - 2) // 6] * 3, width=16)
    return _classify(net, x, "linear", num_classes)


def resnet34(num_classes: int = 1000, input_size: int = 224, *, folded: bool = False, seed: int = 0) -> onnx.ModelProto:
    """ResNet-34 on (N, 3, input_size, input_size): 3.66 G MACs at 224."""
    net = NetBuilder("resnet34", (3, input_size, input_size), folded=folded, gain=GAIN, seed=seed)
    block = basic_block(projection_shortcut("downsample"))
    return _classify(net, stages(net, _stem(net), block, [3, 4, 6, 3], width=64), "fc", num_classes)


def resnet50(
    num_classes: int = 1000,
    input_size: int = 224,
    *,
    stride_in_1x1: bool = False,
    width: int = 64,
    folded: bool = False,
    seed: int = 0,
) -> onnx.ModelProto:
    """ResNet-50 on (N, 3, input_size, input_size): 4.09 G MACs at 224. width: of the stem and the first stage.

    stride_in_1x1: the stride stands in a block's first 1x1 convolution, as in the paper and the Caffe model that
    ThiNet prunes (3.86 G MACs), not in the 3x3 one as in torchvision ("v1.5").
    """
    net = NetBuilder("resnet50", (3, input_size, input_size), folded=folded, gain=GAIN, seed=seed)
    block = bottleneck(projection_shortcut("downsample"), stride_in_1x1)
    return _classify(net, stages(net, _stem(net, width), block, [3, 4, 6, 3], width=width), "fc", num_classes)


def stages(net: NetBuilder, x: Tensor, block: Block, counts: list[int], width: int) -> Tensor:
    """Stages layer1, layer2, ... of `counts` blocks; stages after the first double the width, halve the map."""
    for stage, count in enumerate(counts):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(net, x, f"layer{stage + 1}.{index}", width << stage, stride)
    return x


def basic_block(shortcut: Shortcut) -> Block:
    """relu(shortcut(x) + conv3x3(relu(conv3x3(x)))), each convolution with BatchNorm."""

    def block(net: NetBuilder, x: Tensor, name: str, width: int, stride: int) -> Tensor:
        y = net.conv(x, f"{name}.conv1", width, 3, stride, norm=f"{name}.bn1")
        y = net.relu(y, f"{name}.relu1")
        y = net.conv(y, f"{name}.conv2", width, norm=f"{name}.bn2")
        return _residual_sum(net, y, x, name, shortcut, stride)

    return block


def bottleneck(shortcut: Shortcut, stride_in_1x1: bool = False) -> Block:
    """relu(shortcut(x) + conv1x1(relu(conv3x3(relu(conv1x1(x)))))), the last one four times as wide."""

    def block(net: NetBuilder, x: Tensor, name: str, width: int, stride: int) -> Tensor:
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        y = net.relu(net.conv(x, f"{name}.conv1", width, 1, strides[0], norm=f"{name}.bn1"), f"{name}.relu1")
        y = net.relu(net.conv(y, f"{name}.conv2", width, 3, strides[1], norm=f"{name}.bn2"), f"{name}.relu2")
        y = net.conv(y, f"{name}.conv3", 4 * width, 1, norm=f"{name}.bn3")
        return _residual_sum(net, y, x, name, shortcut, stride)

    return block


def zero_pad_shortcut(net: NetBuilder, x: Tensor, name: str, channels: int, stride: int) -> Tensor:
    """Option A: x[:, :, ::stride, ::stride] between equal numbers of channels of zeros; no parameters."""
    added = channels - x.shape[0]
    x = net.subsample(x, f"{name}.shortcut.slice", stride)
    return net.pad_channels(x, f"{name}.shortcut.pad", added // 2, added - added // 2)


def projection_shortcut(module: str) -> Shortcut:
    """Option B: a 1x1 convolution with BatchNorm, named module.0 and module.1."""

    def shortcut(net: NetBuilder, x: Tensor, name: str, channels: int, stride: int) -> Tensor:
        return net.conv(x, f"{name}.{module}.0", channels, 1, stride, norm=f"{name}.{module}.1")

    return shortcut


def _residual_sum(net: NetBuilder, y: Tensor, x: Tensor, name: str, shortcut: Shortcut, stride: int) -> Tensor:
    x = x if x.shape == y.shape else shortcut(net, x, name, y.shape[0], stride)
    return net.relu(net.add(y, x, f"{name}.add"), f"{name}.relu")


def _stem(net: NetBuilder, width: int = 64) -> Tensor:
    x = net.relu(net.conv(net.input, "conv1", width, 7, 2, norm="bn1"), "relu")
    return net.max_pool(x, "maxpool", 3, 2, 1)


def _classify(net: NetBuilder, x: Tensor, name: str, num_classes: int) -> onnx.ModelProto:
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.model(net.gemm(x, name, num_classes))
