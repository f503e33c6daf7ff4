"""U-Net. Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015.

Padded convolutions with BatchNorm, names as in milesial/Pytorch-UNet.
"""

import onnx

from .builder import NetBuilder, Tensor


def unet(
    num_classes: int = 2, input_size: int = 64, width: int = 16, *, folded: bool = False, seed: int = 0
) -> onnx.ModelProto:
    """A small U-Net on (N, 3, input_size, input_size), input_size divisible by 8; logits (N, num_classes, size, size).

    Three max-poolings on the way down, each doubles the width; three transposed convolutions and concatenations up.
    """
    net = NetBuilder("unet", (3, input_size, input_size), folded=folded, seed=seed)
    x = _double_conv(net, net.input, "inc", width)
    skips = []
    for level in (1, 2, 3):
        skips.append(x)
        x = _double_conv(net, net.max_pool(x, f"down{level}.pool"), f"down{level}", width << level)
    for level, skip in enumerate(reversed(skips), 1):
        x = net.conv_transpose(x, f"up{level}.up", skip.shape[0])
        x = _double_conv(net, net.concat([skip, x], f"up{level}.concat"), f"up{level}", skip.shape[0])
    return net.model(net.conv(x, "outc.conv", num_classes, 1))


def _double_conv(net: NetBuilder, x: Tensor, name: str, channels: int) -> Tensor:
    for step in (0, 3):
        path = f"{name}.double_conv"
        x = net.conv(x, f"{path}.{step}", channels, norm=f"{path}.{step + 1}")
        x = net.relu(x, f"{path}.{step + 2}")
    return x
