"""DenseNet. Huang, Liu, van der Maaten, Weinberger: Densely connected convolutional networks, CVPR 2017.

BatchNorm stands before the convolutions and after concatenations: it cannot be folded, so there is no such option.
"""

import onnx

from .builder import NetBuilder, Tensor


def densenet40(stem: int = 16, growth: int = 12, *, num_classes: int = 10, seed: int = 0) -> onnx.ModelProto:
    """DenseNet-40 without bottlenecks on (N, 3, 32, 32): three blocks of 12 layers that add `growth` channels each.

    stem: 16 channels in the paper (264.8 M MACs), 24 in the pruning literature's copies (282.9 M).
    """
    net = NetBuilder("densenet40", (3, 32, 32), seed=seed)
    x = net.conv(net.input, "conv1", stem, bias=False)
    for block in (1, 2, 3):
        for layer in range(12):
            name = f"block{block}.layer.{layer}"
            x = net.concat([x, _norm_relu_conv(net, x, name, growth, 3)], f"{name}.concat")
        if block < 3:
            x = _norm_relu_conv(net, x, f"trans{block}", x.shape[0], 1)
            x = net.average_pool(x, f"trans{block}.pool")
    x = net.relu(net.batch_norm(x, "bn1"), "relu")
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.model(net.gemm(x, "fc", num_classes))


def _norm_relu_conv(net: NetBuilder, x: Tensor, name: str, channels: int, kernel: int) -> Tensor:
    x = net.relu(net.batch_norm(x, f"{name}.bn1"), f"{name}.relu")
    return net.conv(x, f"{name}.conv1", channels, kernel, bias=False)
