"""The classifier of an intermediate depth: BatchNormalization, ReLU, average pooling, a linear layer, softmax.

Source: Zhuang et al., Discrimination-aware channel pruning for deep neural networks, NeurIPS 2018, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..gates.auxiliary import Depth


class DiscriminationHead(nn.Module):
    """Logits (samples, classes) of the tensor at a depth; its normalisation's statistics run in training."""

    def __init__(self, depth: Depth, channels: int, classes: int, seed: int) -> None:
        """seed: of the linear layer's first weights, normal of variance 2 / channels."""
        super().__init__()
        self.depth = depth
        self.normalise = nn.BatchNorm1d(channels)
        self.linear = nn.Linear(channels, classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.linear.weight.normal_(0, (2 / channels) ** 0.5, generator=generator)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x: samples first; what is neither that nor the channel axis is position."""
        rows = x.movedim(self.depth.axis, 1).flatten(2) if x.dim() > 2 else x.unsqueeze(2)
        return self.linear(torch.relu(self.normalise(rows)).mean(2))
