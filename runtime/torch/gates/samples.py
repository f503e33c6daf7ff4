"""Data on their way into a module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...data.sources import Batch
from ..graph_module import GraphModule


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """A batch as tensors: the module's inputs in their order, and the labels, int64 (n,), where they are known."""

    inputs: list[Tensor]
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def one(self, number: int) -> TensorBatch:
        """The batch of one of them; an input that all share stays as it is."""
        part, count = slice(number, number + 1), len(self)
        inputs = [x[part] if x.dim() and len(x) == count else x for x in self.inputs]
        return TensorBatch(inputs, None if self.labels is None else self.labels[part])


def to_samples(module: GraphModule, batch: Batch, device: torch.device) -> TensorBatch:
    """The batch's arrays, copied."""
    inputs = [torch.from_numpy(np.array(batch.feeds[name])).to(device) for name in module.input_names]
    return TensorBatch(inputs, None if batch.labels is None else torch.from_numpy(np.array(batch.labels)).to(device))
