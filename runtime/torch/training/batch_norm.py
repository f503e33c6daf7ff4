"""Statistics of BatchNormalization measured on data: of the ones that are put in, and of those that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor

from ....passes.errors import UsageError
from ....passes.rewrite.batch_norm import ChannelStatistics, normalisable
from ....passes.rewrite.batch_norm import insert_batch_norms as insert
from ...data.sources import Batch
from ..graph_module import GraphModule


def insert_batch_norms(
    model: onnx.ModelProto, data: Iterable[Batch], *, device: str | torch.device = "cpu"
) -> onnx.ModelProto:
    """The model with a BatchNormalization behind each convolution that can take one, and the same function.

    Its statistics are those of the data. A tensor of one position an image (a gate's) gets none: its batch is small
    and nothing was folded there. `passes.batch_norm.fold_batch_norms` takes them away again.
    Raises UsageError where there are no data, or torch lacks an operator.
    """
    statistics = channel_statistics(model, normalisable(model.graph), data, device=device)
    return insert(model, {name: found for name, found in statistics.items() if found is not None})


def channel_statistics(
    model: onnx.ModelProto, names: Iterable[str], data: Iterable[Batch], *, device: str | torch.device = "cpu"
) -> dict[str, ChannelStatistics | None]:
    """Mean and variance of each channel (axis 1) of the named tensors; None where a tensor has one position an image.

    Sums are float64, whatever the model computes in.
    """
    module = GraphModule(model).to(device).eval()
    sums = {name: _Sums() for name in names}
    edits = {name: _observer(found) for name, found in sums.items()}
    with torch.no_grad():
        for batch in data:
            module(*(torch.from_numpy(batch.feeds[name]).to(device) for name in module.input_names), edits=edits)
    if any(not found.count for found in sums.values()):
        raise UsageError("there are no samples to measure on", where="the training data", fix="give at least one")
    return {name: found.statistics() for name, found in sums.items()}


def renew_statistics(module: GraphModule, batches: Iterable[Sequence[Tensor]]) -> None:
    """Running mean and variance <- the mean over the batches of each batch's own; nothing else changes.

    The batches go through without gradients or Dropout, every layer normalising them by their own statistics. What the
    running ones were is forgotten. Source: Ioffe and Szegedy, Batch normalization, 2015, algorithm 2, lines 8 to 12.
    """
    if not module.statistics_names:
        return
    batch_norm, training, seen = module.batch_norm, module.training, 0

    def cumulative(x: Tensor, mean: Tensor, var: Tensor, scale: Tensor, bias: Tensor, *settings: float) -> Tensor:
        *_, epsilon = settings  # training and momentum are those of the mean over the batches
        return batch_norm(x, mean, var, scale, bias, True, 1 / seen, epsilon)

    module.batch_norm = cumulative
    module.eval()
    try:
        with torch.no_grad():
            for inputs in batches:
                seen += 1
                module(*inputs)
    finally:
        module.batch_norm = batch_norm
        module.train(training)


@dataclass
class _Sums:
    """Count, mean and sum of squared deviations of each channel, merged batch by batch (Chan et al. 1979)."""

    count: int = 0
    positions: int = 0
    mean: Tensor | None = None
    deviations: Tensor | None = None

    def add(self, x: Tensor) -> None:
        rows = x.detach().movedim(1, 0).flatten(1).double()
        count, mean = rows.shape[1], rows.mean(1)
        deviations = (rows - mean[:, None]).square().sum(1)
        self.positions = max(self.positions, count // max(x.shape[0], 1))
        if self.mean is None or self.deviations is None:
            self.count, self.mean, self.deviations = count, mean, deviations
            return
        total, gap = self.count + count, mean - self.mean
        self.mean = self.mean + gap * (count / total)
        self.deviations = self.deviations + deviations + gap.square() * (self.count * count / total)
        self.count = total

    def statistics(self) -> ChannelStatistics | None:
        assert self.mean is not None
        assert self.deviations is not None
        if self.positions == 1:
            return None
        return ChannelStatistics(self.mean.cpu().numpy(), (self.deviations / self.count).cpu().numpy())


def _observer(sums: _Sums) -> Callable[[Tensor], Tensor]:
    def observe(x: Tensor) -> Tensor:
        sums.add(x)
        return x

    return observe
