"""Gradients of the loss by gates on channels, of every sample on its own: one forward and backward pass for all groups.

A unit's gate is a factor on the unit's channels wherever a layer reads them, 1 now; at 0 the unit is cut: that zeroes
what reads it (passes/channels/silence.py). BatchNormalization and activation stand before the gate. Along a residual
stream a factor on every reader is one on every layer that adds to the stream, so that the gates of all producers are
summed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ....passes.channels.groups import ChannelGroups
from ....passes.channels.labels import LabelledGraph
from ....passes.errors import ReadError, UsageError
from ...data.sources import Batch
from ...device import Device
from ...progress import Count, silent
from ..graph_module import GraphModule
from ..place import torch_device
from .auxiliary import AuxiliaryHead, Depth, depths, fit_heads
from .loss import GateLoss, Signs
from .model import GatedModel, GatedTensor, with_gates
from .readout import Edits, Readout
from .samples import TensorBatch, to_samples
from .tuning import tune_heads

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which loss the gradients are of.

    labels: of the data's labels, where there are any (see loss.py)
    auxiliary: how many classifiers at intermediate depths add theirs (auxiliary.py)
    tuned: whether a copy of the network is trained together with the classifiers before the gradients are taken
    seed: of what is drawn
    """

    labels: bool = True
    auxiliary: int = 0
    tuned: bool = False
    seed: int = 0


def gate_gradients(
    groups: ChannelGroups,
    data: Iterable[Batch],
    wanted: Wanted | None = None,
    *,
    device: Device = "auto",
    progress: Count = silent,
) -> dict[str, Array]:
    """U of every free group that a layer reads: (samples, units) float64, U[n, i] = d loss_n / d gate_i.

    Auxiliary classifiers have losses of their own, whose rows follow: (losses * samples, units), loss by loss.
    Running statistics are used, so that samples do not see one another. Memory: U, and the activations of a batch.
    progress is told how many samples are done. Raises UsageError for an operator that torch lacks here, or a loss that
    the data or the model do not allow; ReadError where gradients are not finite.
    """
    gated, wanted = with_gates(groups), wanted or Wanted()
    network = _Network(gated, GraphModule(gated.model).to(torch_device(device)).eval().requires_grad_(False), data)
    loss = network.loss(groups.labelled, wanted)
    rows: list[Array] = []
    for samples in network:
        gates = samples.inputs[0].new_ones(len(samples), gated.gates, dtype=torch.float64, requires_grad=True)
        rows.append(_gradients(loss(samples, gate_edits(gated, gates)), gates))
        progress(sum(part.shape[1] for part in rows), None)
    if not rows:
        raise UsageError(
            "there are no samples to take gradients on", where="the calibration data", fix="give at least one"
        )
    U = np.concatenate(rows, axis=1).reshape(-1, gated.gates)
    if not np.isfinite(U).all():
        raise ReadError(
            "the gradients are not finite", where="the calibration data", fix="check the data and their preprocessing"
        )
    return {name: U[:, found] for name, found in gated.columns.items()}


def _gradients(losses: tuple[Tensor, ...], gates: Tensor) -> Array:
    """(losses, samples, gates) float64; a loss that no gate reaches has zeros."""
    last = len(losses) - 1
    found = [
        torch.autograd.grad(loss, gates, retain_graph=number < last, allow_unused=True, materialize_grads=True)[0]
        for number, loss in enumerate(losses)
    ]
    return torch.stack(found).cpu().numpy()


def gate_edits(gated: GatedModel, gates: Tensor) -> Edits:
    """What multiplies the gates onto the model's tensors. gates: (samples, gates), or (1, gates) for all samples."""
    padded = torch.cat([gates, gates.new_ones(len(gates), 1)], dim=1)
    return {gate.tensor: partial(_multiply, gate=gate, gates=padded) for gate in gated.tensors}


def _multiply(x: Tensor, gate: GatedTensor, gates: Tensor) -> Tensor:
    shape = [1] * x.dim()
    if len(gates) > 1:
        shape[0] = len(gates)
    shape[gate.axis] = x.shape[gate.axis]
    columns = torch.from_numpy(gate.columns).to(gates.device)
    return x * gates[:, columns].to(x.dtype).reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """A gated model as a module, and the data: iterating gives batches in which samples are apart on the first axis."""

    gated: GatedModel
    module: GraphModule
    data: Iterable[Batch]

    def __iter__(self) -> Iterator[TensorBatch]:
        place = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        together: bool | None = None
        for batch in self.data:
            samples = to_samples(self.module, batch, place)
            if together is None and len(samples) > 1:
                together = self._apart(samples)
            yield from map(samples.one, range(len(samples))) if together is False else [samples]

    def loss(self, labelled: LabelledGraph, wanted: Wanted) -> GateLoss:
        readout = Readout.of(self.module, self.gated.model.graph)
        heads: tuple[AuxiliaryHead, ...] = ()
        if wanted.auxiliary:
            read = depths(labelled, wanted.auxiliary)
            where = tuple(Depth(self.gated.behind(depth.tensor, depth.axis), depth.axis) for depth in read)
            heads = fit_heads(readout, where, self, labels=wanted.labels)
            if wanted.tuned:
                heads = tune_heads(readout, heads, self, labels=wanted.labels)
        return GateLoss(readout, heads, wanted.labels, Signs(wanted.seed))

    def _apart(self, samples: TensorBatch) -> bool:
        """Whether every gated tensor has one sample at each index of its first axis."""
        count, shapes = len(samples), {}

        def see(x: Tensor, name: str) -> Tensor:
            shapes[name] = tuple(x.shape)
            return x

        tensors, batch = self.gated.tensors, self.gated.batch
        with torch.no_grad():
            self.module(*samples.inputs, edits={s.tensor: partial(see, name=s.tensor) for s in tensors})
        apart = all(s.axis > 0 and s.shape[0] == batch and shapes[s.tensor] == (count, *s.shape[1:]) for s in tensors)
        if not apart and batch == count:
            raise UsageError(
                f"the model fixes a batch of {count} and mixes its samples, which have no gradients of their own",
                where="--criterion",
                fix="export it with a free batch, or take a criterion without gradients",
            )
        return apart
