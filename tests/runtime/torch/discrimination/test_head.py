"""The classifier of a depth against torch's own layers."""

from __future__ import annotations

import torch
from onnx_prune.runtime.torch.discrimination.head import DiscriminationHead
from onnx_prune.runtime.torch.gates.auxiliary import Depth
from torch import nn


def test_a_head_is_normalisation_rectifier_pooling_and_a_linear_layer():
    head = DiscriminationHead(Depth("x", 1), 6, 3, seed=0)
    pool = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    twin = nn.Sequential(nn.BatchNorm2d(6), *pool, nn.Linear(6, 3))
    twin[4].load_state_dict(head.linear.state_dict())
    x = torch.randn(5, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        torch.testing.assert_close(head.train(mode)(x), twin.train(mode)(x))
    last = DiscriminationHead(Depth("x", 3), 6, 3, seed=0).train()
    torch.testing.assert_close(last(x.movedim(1, 3)), twin.train()(x))
    assert head(torch.zeros(2, 6)).shape == (2, 3)
