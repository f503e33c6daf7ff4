"""The demo: a small residual network trained on the 8x8 handwritten digits that come with scikit-learn.

Data: E. Alpaydin, C. Kaynak: Optical recognition of handwritten digits, UCI, 1998. `train_digits.py` makes the files.
"""

from pathlib import Path

import onnx

from .builder import NetBuilder
from .resnet import GAIN, basic_block, projection_shortcut, stages

_HERE = Path(__file__).parent


def digits_resnet(*, folded: bool = False, seed: int = 0) -> onnx.ModelProto:
    """The demo's network, untrained, on (N, 1, 8, 8), pixels in [0, 1]; 95 k parameters, 3.3 M MACs.

    A 3x3 stem and two basic blocks with 32 channels, then one with 64, stride 2 and a projection shortcut.
    """
    net = NetBuilder("digits_resnet", (1, 8, 8), folded=folded, gain=GAIN, seed=seed)
    block = basic_block(projection_shortcut("downsample"))
    x = net.relu(net.conv(net.input, "conv1", 32, norm="bn1"), "relu")
    x = stages(net, x, block, [2, 1], width=32)
    x = net.flatten(net.global_average_pool(x, "avgpool"), "flatten")
    return net.model(net.gemm(x, "fc", 10))


def digits_model() -> Path:
    """The trained demo model, an ONNX file."""
    return _HERE / "digits.onnx"


def digits_data() -> tuple[Path, Path]:
    """The demo's held-out test images and its calibration images, a part of the training images.

    Each is an .npz with `input`, float32 (n, 1, 8, 8), and `label`, int64 (n,).
    """
    return _HERE / "digits_test.npz", _HERE / "digits_calibration.npz"
