"""Train the demo network and write digits.onnx, digits_test.npz and digits_calibration.npz beside this file.

Run it as `python -m onnx_prune.models.train_digits`; it needs torch and scikit-learn, about a minute on two cores.
The test images take no part in training or in any choice.
"""

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

from .builder import with_initializers
from .digits import digits_data, digits_model, digits_resnet

SEED = 0
TEST_SHARE = 0.2
CALIBRATION_IMAGES = 400
EPOCHS, BATCH, PEAK_RATE = 60, 64, 4e-3


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), the shortcut a projection where the shape changes."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        """Take `before` channels to `width`; the first convolution has the stride."""
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = nn.Sequential()
        if stride > 1 or before != width:
            self.downsample = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, before, H, W) to (N, width, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class DigitsResNet(nn.Module):
    """`digits_resnet` in torch; parameters and buffers bear the same names."""

    def __init__(self) -> None:
        """32 channels, then 64."""
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32)
        self.layer1 = nn.Sequential(BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.layer2 = nn.Sequential(BasicBlock(32, 64, 2))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 8, 8) to logits (N, 10)."""
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def load() -> list[np.ndarray]:
    """[x, x_test, y, y_test], class-balanced: x float32 (n, 1, 8, 8) in [0, 1], y int64 (n,)."""
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    images, labels = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)
    split = train_test_split(images, labels, test_size=TEST_SHARE, stratify=labels, random_state=SEED)
    return [np.asarray(part) for part in split]


def shift(images: torch.Tensor) -> torch.Tensor:
    """Move each image by -1, 0 or 1 pixels along both axes; zeros come in."""
    rows, columns = torch.randint(0, 3, (2, len(images), 1)) + torch.arange(8)
    padded = F.pad(images[:, 0], (1, 1, 1, 1))
    return padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def train(x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    """The trained weights by their names: AdamW, one-cycle learning rate, label smoothing."""
    net = DigitsResNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, EPOCHS * -(-len(x) // BATCH))
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(net(shift(x[batch])), y[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {name: value.numpy() for name, value in net.state_dict().items() if value.is_floating_point()}


def accuracy(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 share of the ONNX model itself, in onnx's reference evaluator."""
    (logits,) = ReferenceEvaluator(model).run(["logits"], {"input": images})
    return float((np.argmax(logits, 1) == labels).mean())


def main() -> None:
    """Train, write the three files, say the accuracy."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    x, x_test, y, y_test = load()
    model = with_initializers(digits_resnet(), train(torch.from_numpy(x), torch.from_numpy(y)))
    test, calibration = digits_data()
    part, _ = train_test_split(np.arange(len(y)), train_size=CALIBRATION_IMAGES, stratify=y, random_state=SEED)
    onnx.save(model, digits_model())
    np.savez_compressed(test, input=x_test, label=y_test)
    np.savez_compressed(calibration, input=x[part], label=y[part])
    share = accuracy(model, x_test, y_test)
    print(f"test accuracy: {share:.2%} of {len(y_test)} images")  # noqa: T201 - what the script is asked for


if __name__ == "__main__":
    main()
