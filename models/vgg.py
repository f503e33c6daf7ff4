"""VGG-16. Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, ICLR 2015.

The CIFAR variant is that of Li et al., Pruning filters for efficient ConvNets, ICLR 2017: BatchNorm after every
convolution and after the first of two fully connected layers.
"""

import onnx

from .builder import NetBuilder, Tensor

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions; a max-pool ends each


def vgg16_cifar(num_classes: int = 10, input_size: int = 32, *, folded: bool = False, seed: int = 0) -> onnx.ModelProto:
    """VGG-16 with the classifier 512-512-classes on (N, 3, input_size, input_size): 313 M MACs at 32."""
    net = NetBuilder("vgg16_cifar", (3, input_size, input_size), folded=folded, seed=seed)
    x = net.flatten(_features(net, net.input), "flatten")
    x = net.relu(net.gemm(x, "classifier.0", 512, norm="classifier.1"), "classifier.2")
    return net.model(net.gemm(x, "classifier.3", num_classes))


def vgg16_imagenet(
    num_classes: int = 1000, input_size: int = 224, hidden: int = 4096, *, folded: bool = False, seed: int = 0
) -> onnx.ModelProto:
    """VGG-16 with the classifier (512 x 7 x 7)-hidden-hidden-classes, torchvision's names: 15.5 G MACs, 553 MB at 4096.

    folded gives the shape of the original network, which had no BatchNorm (the one of ThiNet).
    """
    net = NetBuilder("vgg16_imagenet", (3, input_size, input_size), folded=folded, seed=seed)
    x = net.flatten(_features(net, net.input), "flatten")
    x = net.relu(net.gemm(x, "classifier.0", hidden), "classifier.1")
    x = net.relu(net.gemm(x, "classifier.3", hidden), "classifier.4")
    return net.model(net.gemm(x, "classifier.6", num_classes))


def _features(net: NetBuilder, x: Tensor) -> Tensor:
    index = 0
    for channels, convolutions in STAGES:
        for _ in range(convolutions):
            x = net.conv(x, f"features.{index}", channels, norm=f"features.{index + 1}")
            x = net.relu(x, f"features.{index + 2}")
            index += 3
        x = net.max_pool(x, f"features.{index}")
        index += 1
    return x
