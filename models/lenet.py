"""LeNet-5. LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998.

The widths are those of Caffe's LeNet-5 (20, 50, 500), the one that the pruning literature measures: 431 k parameters.
"""

import onnx

from .builder import NetBuilder


def lenet5(num_classes: int = 10, *, seed: int = 0) -> onnx.ModelProto:
    """LeNet-5 on (N, 1, 28, 28): two convolutions without padding, each max-pooled, and two fully connected layers."""
    net = NetBuilder("lenet5", (1, 28, 28), seed=seed)
    x = net.max_pool(net.conv(net.input, "conv1", 20, 5, padding=0), "pool1")
    x = net.max_pool(net.conv(x, "conv2", 50, 5, padding=0), "pool2")
    x = net.relu(net.gemm(net.flatten(x, "flatten"), "fc1", 500), "relu1")
    return net.model(net.gemm(x, "fc2", num_classes))
