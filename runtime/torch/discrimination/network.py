"""The network that is trained and thinned stage by stage, its data, and what it is to learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....passes.channels.groups import ChannelGroup, Key
from ....passes.errors import UsageError
from ...data.sources import Batch
from ..gates.auxiliary import Depth
from ..gates.readout import Readout, as_logits, check_labels
from ..gates.samples import TensorBatch, to_samples
from ..graph_module import GraphModule, refuse_half
from .head import DiscriminationHead

_BATCH = 64  # samples a step
_MOMENTUM, _DECAY, _CLIP = 0.9, 1e-4, 5.0


@dataclass(eq=False)
class Network:
    """module: its weights; readout: its logits; data, wanted: samples and their classes; dead: weights at zero."""

    module: GraphModule
    readout: Readout
    data: list[TensorBatch]
    wanted: list[Tensor]
    dead: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(model: onnx.ModelProto, data: Iterable[Batch], place: torch.device, *, labels: bool) -> Network:
        """Classes are the labels, where there are any and `labels` says so, else those that the model finds.

        Raises UsageError where the model is no classifier, is in half precision, or has no samples.
        """
        module = GraphModule(model).to(place).eval()
        refuse_half(module, fix="prune the float32 model and convert the result, or take ccp or obs")
        readout = Readout.of(module, model.graph)
        samples = [part for batch in data for part in _parts(to_samples(module, batch, place))]
        if not samples:
            raise UsageError("there are no samples to choose on", where="the calibration data", fix="give some")
        wanted = []
        with torch.no_grad():
            for one in samples:
                logits = _logits(readout(one)[0], len(one))
                if labels and one.labels is not None:
                    check_labels(one.labels, logits)
                wanted.append(one.labels if labels and one.labels is not None else logits.argmax(1))
        return Network(module, readout, samples, wanted)

    @property
    def sizes(self) -> list[int]:
        return [len(one) for one in self.data]

    @property
    def logits(self) -> str:
        """The tensor of the first output that classifies, in front of a last softmax."""
        with torch.no_grad():
            _, seen = self.readout(self.data[0])
        count = len(self.data[0])
        return next(name for name in self.readout.tensors if as_logits(seen[name], count) is not None)

    def head(self, depth: Depth, seed: int) -> DiscriminationHead:
        """An untrained classifier of that depth."""
        with torch.no_grad():
            outputs, seen = self.readout(self.data[0], watch=[depth.tensor])
        x = seen[depth.tensor]
        classes = _logits(outputs, len(self.data[0])).shape[1]
        return DiscriminationHead(depth, x.shape[depth.axis], classes, seed).to(x)

    def train(self, head: DiscriminationHead | None, passes: int, rate: float, rng: np.random.Generator) -> None:
        """Passes of SGD on the network's cross-entropy plus the head's, both of weight 1; the dead stay at zero.

        Running statistics stay: a few passes over a few samples would make them worse.
        """
        weights = [w for w in self.module.parameters() if w.is_floating_point()]
        self.module.requires_grad_(True)
        optimiser = torch.optim.SGD(
            [{"params": weights, "weight_decay": _DECAY}, {"params": [] if head is None else list(head.parameters())}],
            lr=rate, momentum=_MOMENTUM, nesterov=True,
        )  # fmt: skip
        if head is not None:
            head.train()
        for number in (n for _ in range(passes) for n in rng.permutation(len(self.data)).tolist()):
            optimiser.zero_grad()
            self._loss(number, head).backward()
            nn.utils.clip_grad_norm_(weights, _CLIP)
            optimiser.step()
            self.bury()
        self.module.requires_grad_(False)
        if head is not None:
            head.eval().requires_grad_(False)

    def bury(self) -> None:
        """Zero what is dead."""
        with torch.no_grad():
            for name, alive in self.dead.items():
                self.parameter(name).mul_(alive)

    def parameter(self, name: str) -> nn.Parameter:
        """The weight of that name in the graph."""
        return self.module.get_parameter(self.module.parameter_names[name])

    def kill(self, group: ChannelGroup, keys: Sequence[Key], units: Sequence[int]) -> None:
        """These units are read by nobody from now on."""
        for key in keys:
            alive = self.dead.setdefault(key.constant, torch.ones_like(self.parameter(key.constant)))
            alive.movedim(key.axis, 0)[torch.from_numpy(group.slices[key][list(units)].ravel())] = 0
        self.bury()

    def _loss(self, number: int, head: DiscriminationHead | None) -> Tensor:
        samples, wanted = self.data[number], self.wanted[number]
        outputs, seen = self.readout(samples, watch=[] if head is None else [head.depth.tensor])
        own = F.cross_entropy(_logits(outputs, len(samples)).float(), wanted)
        return own if head is None else own + F.cross_entropy(head(seen[head.depth.tensor]), wanted)


def _parts(samples: TensorBatch) -> list[TensorBatch]:
    """In batches of at most so many; an input that all samples share stays with each."""
    count = len(samples)
    if count <= _BATCH or any(not x.dim() or len(x) != count for x in samples.inputs):
        return [samples]
    parts = [slice(start, start + _BATCH) for start in range(0, count, _BATCH)]
    labels = samples.labels
    return [TensorBatch([x[p] for x in samples.inputs], None if labels is None else labels[p]) for p in parts]


def _logits(outputs: Sequence[Tensor], samples: int) -> Tensor:
    for value in outputs:
        rows = as_logits(value, samples)
        if rows is not None:
            return rows
    raise UsageError(
        "discrimination-aware losses need a classifier: no output has the form (samples, classes)",
        where="--criterion dcp",
        fix="take obs or channel-pruning",
    )
