"""Train VGG-16 on CIFAR-10 and write it as ONNX: `python -m onnx_prune.models.train_cifar TRAIN TEST OUT.onnx`.

TRAIN and TEST are zips of images in class folders, 32x32. It needs torch and Pillow. The result reads pixels / 255 less
MEAN over DEVIATION, as other CIFAR networks do, and holds its BatchNormalizations. The test images take no part in
training or in any choice; the weights of the last epoch are written.
"""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import onnx
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from .builder import with_initializers
from .vgg import STAGES, vgg16_cifar

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, PEAK_RATE, WEIGHT_DECAY, MOMENTUM, SMOOTHING = 128, 0.1, 5e-4, 0.9, 0.1
CROP = 4  # pixels that an image is moved by at most

Tensor = torch.Tensor


class Images(NamedTuple):
    """Images and their classes.

    x: uint8 (n, 3, 32, 32)
    y: int64 (n,)
    """

    x: Tensor
    y: Tensor


def load(path: Path) -> Images:
    """All images of a zip of class folders; classes are numbered in the order of the folders' names."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    _, labels = np.unique([Path(name).parent.name for name in names], return_inverse=True)
    return Images(torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels))


class VGG(nn.Module):
    """`vgg16_cifar` in torch; parameters and buffers bear the same names."""

    def __init__(self) -> None:
        """Thirteen convolutions and two fully connected layers, BatchNorm after all but the last."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, convolutions in STAGES:
            for _ in range(convolutions):
                convolution = nn.Conv2d(before, channels, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden = nn.Linear(before, before, bias=False)
        self.classifier = nn.Sequential(hidden, nn.BatchNorm1d(before), nn.ReLU(inplace=True), nn.Linear(before, 10))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to logits (N, 10)."""
        return self.classifier(self.features(x).flatten(1))


def normalised(pixels: Tensor) -> Tensor:
    """Uint8 (n, 3, 32, 32) to what the network reads, float32."""
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return ((pixels.float() / 255 - mean) / deviation).contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor) -> Tensor:
    """Mirror half of the images and move each by up to CROP pixels; zeros come in."""
    n, _, height, width = images.shape
    padded = F.pad(images, (CROP,) * 4)
    rows = torch.randint(0, 2 * CROP + 1, (n, 1)) + torch.arange(height)
    columns = torch.randint(0, 2 * CROP + 1, (n, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    number = torch.arange(n)[:, None, None, None]
    moved = padded[number, torch.arange(3)[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]
    return moved.contiguous(memory_format=torch.channels_last)


def train(images: Images, epochs: int) -> VGG:
    """SGD with Nesterov momentum, one-cycle learning rate, label smoothing; bfloat16 where the arithmetic allows."""
    net = VGG().train()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=PEAK_RATE, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = len(images.y) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, epochs * steps, pct_start=0.2, cycle_momentum=False
    )
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(images.y))[: steps * BATCH].view(steps, BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(augmented(normalised(images.x[batch])))
            loss = F.cross_entropy(logits.float(), images.y[batch], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        click.echo(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.4f}")
    return net


@torch.no_grad()
def accuracy(net: VGG, images: Images) -> float:
    """Top-1 share, in float32."""
    net.eval()
    batches = zip(images.x.split(500), images.y.split(500), strict=True)
    return sum(int((net(normalised(x)).argmax(1) == y).sum()) for x, y in batches) / len(images.y)


@click.command()
@click.argument("training", type=click.Path(path_type=Path, exists=True))
@click.argument("test", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--epochs", default=6, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(training: Path, test: Path, output: Path, epochs: int, seed: int) -> None:
    """Train, write OUTPUT, say the accuracy on TEST."""
    torch.manual_seed(seed)
    net = train(load(training), epochs)
    values = {name: value.numpy() for name, value in net.state_dict().items() if value.is_floating_point()}
    onnx.save(with_initializers(vgg16_cifar(), values), output)
    images = load(test)
    click.echo(f"test accuracy: {accuracy(net, images):.2%} of {len(images.y)} images")


if __name__ == "__main__":
    main()
