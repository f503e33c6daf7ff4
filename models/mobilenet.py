"""MobileNets.

V1: Howard et al., MobileNets: efficient convolutional neural networks for mobile vision applications, 2017.
V2: Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, CVPR 2018 (torchvision's names).
"""

import onnx

from .builder import NetBuilder, Tensor

# channels and stride of the blocks: table 1 of the paper
V1 = (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)
# expansion, channels, blocks and the first block's stride of the stages: table 2 of the paper
V2 = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)


def mobilenet_v1(
    num_classes: int = 1000, input_size: int = 224, *, folded: bool = False, seed: int = 0
) -> onnx.ModelProto:
    """MobileNetV1 on (N, 3, input_size, input_size): 13 depthwise-separable blocks, 569 M MACs at 224."""
    net = NetBuilder("mobilenet_v1", (3, input_size, input_size), folded=folded, seed=seed)
    x = net.relu(net.conv(net.input, "model.0.0", 32, 3, 2, norm="model.0.1"), "model.0.2")
    for index, (channels, stride) in enumerate(V1, 1):
        name, width = f"model.{index}", x.shape[0]
        x = net.conv(x, f"{name}.0", width, 3, stride, groups=width, norm=f"{name}.1")
        x = net.relu(x, f"{name}.2")
        x = net.relu(net.conv(x, f"{name}.3", channels, 1, norm=f"{name}.4"), f"{name}.5")
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.model(net.gemm(x, "fc", num_classes))


def mobilenet_v2(
    num_classes: int = 1000, input_size: int = 224, *, folded: bool = False, seed: int = 0
) -> onnx.ModelProto:
    """MobileNetV2 on (N, 3, input_size, input_size): 17 inverted residual blocks, 301 M MACs at 224."""
    net = NetBuilder("mobilenet_v2", (3, input_size, input_size), folded=folded, seed=seed)
    x = _conv_relu6(net, net.input, "features.0", 32, 3, 2)
    index = 1
    for expansion, channels, blocks, first_stride in V2:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = _inverted_residual(net, x, f"features.{index}", expansion, channels, stride)
            index += 1
    x = _conv_relu6(net, x, f"features.{index}", 1280, 1)
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.model(net.gemm(x, "classifier.1", num_classes))


def _inverted_residual(net: NetBuilder, x: Tensor, name: str, expansion: int, channels: int, stride: int) -> Tensor:
    """Expand 1x1 (unless expansion is 1), depthwise 3x3, project 1x1 without activation; a sum where shapes agree."""
    width, y, step = expansion * x.shape[0], x, 0
    if expansion > 1:
        y, step = _conv_relu6(net, y, f"{name}.conv.0", width, 1), 1
    y = _conv_relu6(net, y, f"{name}.conv.{step}", width, 3, stride, groups=width)
    y = net.conv(y, f"{name}.conv.{step + 1}", channels, 1, norm=f"{name}.conv.{step + 2}")
    return net.add(x, y, f"{name}.add") if x.shape == y.shape else y


def _conv_relu6(
    net: NetBuilder, x: Tensor, name: str, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> Tensor:
    x = net.conv(x, f"{name}.0", channels, kernel, stride, groups=groups, norm=f"{name}.1")
    return net.relu6(x, f"{name}.2")
