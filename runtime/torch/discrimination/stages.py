"""Discrimination-aware channel pruning: stage by stage, from the first layers to the last.

A stage ends where a loss L_S stands: P classifiers at intermediate depths, and the network's own last. In each
    1. the network is fine-tuned on L_S plus its own loss L_f,
    2. for every layer of the stage channels of its input are chosen greedily by L = L_M + weight * L_S, where
       L_M = |O_b - O|^2 / (2 Q) compares its Q outputs with the given network's.
Source: Zhuang et al., Discrimination-aware channel pruning for deep neural networks, NeurIPS 2018, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from ....passes.channels.groups import ChannelGroup, ChannelGroups, Key
from ....passes.errors import UsageError
from ....passes.graph.export import to_model
from ....passes.selection.criteria.gradients.dcp import Dcp
from ...data.sources import Batch
from ...device import Device
from ...progress import Count, silent
from ..gates.auxiliary import Depth, depths
from ..graph_module import GraphModule
from ..place import torch_device
from .choosing import Choosing, Slices
from .greedy import Chosen, choose_greedily
from .head import DiscriminationHead
from .network import Network
from .part import behind


@dataclass(frozen=True, slots=True)
class Discriminated:
    """What came of it.

    removed: group -> its units that went
    model: the network as trained on the way, in which nothing reads them
    losses: group -> L without any of its channels, and after each choice
    """

    removed: dict[str, tuple[int, ...]]
    model: onnx.ModelProto
    losses: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class _Read:
    """A group, the weights that read it, and the first outputs of the nodes that have them."""

    group: ChannelGroup
    keys: tuple[Key, ...]
    outputs: tuple[str, ...]
    node: int


def select_discriminating(
    groups: ChannelGroups,
    kept: Mapping[str, int],
    data: Iterable[Batch],
    criterion: Dcp | None = None,
    *,
    seed: int = 0,
    device: Device = "auto",
    progress: Count = silent,
) -> Discriminated:
    """Choose the channels of these groups, so many of each at most; progress is told how many groups are done.

    Groups that something else than weights of layers reads are left out. Raises UsageError for a model that is no
    classifier or an operator that torch lacks here, AccuracyError where the loss diverges.
    """
    criterion, place = criterion or Dcp(), torch_device(device)
    given = to_model(groups.labelled.graph)
    network = Network.of(given, data, place, labels=criterion.labels)
    waiting = [read for read in _read(groups, network.module) if read.group.name in kept]
    rng = np.random.default_rng(seed)
    removed: dict[str, tuple[int, ...]] = {}
    losses: dict[str, tuple[float, ...]] = {}
    for depth, last in _stages(groups, criterion.losses):
        layers = [read for read in waiting if last is None or read.node < last]
        waiting = [read for read in waiting if read not in layers]
        if not layers:
            continue
        head = None if depth is None else network.head(depth, seed)
        network.train(head, criterion.passes, criterion.tuning, rng)
        for read in layers:
            run = _Layer(network, given, read, head)
            stays, losses[read.group.name] = run.choose(kept[read.group.name], criterion, place)
            removed[read.group.name] = tuple(sorted(set(range(read.group.units)).difference(stays)))
            network.kill(read.group, read.keys, removed[read.group.name])
            progress(len(removed), len(removed) + len(waiting) + len(layers) - 1 - layers.index(read))
    return Discriminated(removed, network.module.to_model(), losses)


def _read(groups: ChannelGroups, module: GraphModule) -> list[_Read]:
    """The groups that weights of layers read and nothing else, in the order of these layers."""
    labelled, found = groups.labelled, []
    for group in groups.free:
        readers = [c for c in labelled.consumers if _reads(groups, group, c.labels)]
        names = {key.constant for key in group.consumed}
        if not names or not names <= module.parameter_names.keys() or {c.weight for c in readers} != names:
            continue
        outputs = tuple(dict.fromkeys(labelled.graph.gs.nodes[c.node].outputs[0].name for c in readers))
        found.append(_Read(group, group.consumed, outputs, min(c.node for c in readers)))
    return sorted(found, key=lambda read: read.node)


def _reads(groups: ChannelGroups, group: ChannelGroup, labels: np.ndarray) -> bool:
    return bool(np.isin(groups.component[labels[labels >= 0]], group.components).any())


def _stages(groups: ChannelGroups, losses: int) -> Iterator[tuple[Depth | None, int | None]]:
    """The depth of each stage's loss, and the number of the node that makes it; None for the network's own."""
    made = {t.name: number for number, node in enumerate(groups.labelled.graph.gs.nodes) for t in node.outputs}
    for depth in _depths(groups, losses):
        yield depth, made[depth.tensor]
    yield None, None


def _depths(groups: ChannelGroups, count: int) -> tuple[Depth, ...]:
    """So many, or as many as the network has."""
    if not count:
        return ()
    try:
        return depths(groups.labelled, count)
    except UsageError:
        return _depths(groups, count - 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One group at its turn. head: of the stage's loss, None for the network's own."""

    network: Network
    given: onnx.ModelProto
    read: _Read
    head: DiscriminationHead | None

    def choose(self, most: int, criterion: Dcp, place: torch.device) -> Chosen:
        """The units that stay; the network has the weights that were found for them."""
        network, read = self.network, self.read
        target = network.logits if self.head is None else self.head.depth.tensor
        part = behind(network.module.to_model(), read.outputs, [*read.outputs, target], network.data, place)
        names = list(dict.fromkeys([*read.outputs, target]))
        targets = self._targets(place)

        def loss(number: int) -> Tensor:
            found = dict(zip(names, part(number), strict=True))
            wanted = network.wanted[number]
            logits = found[target].flatten(1) if self.head is None else self.head(found[target])
            parts = [F.mse_loss(found[n], t) / 2 for n, t in zip(read.outputs, targets(number), strict=True)]
            return torch.stack(parts).sum() + criterion.weight * F.cross_entropy(logits.float(), wanted)

        own = {name: part.module.get_parameter(part.module.parameter_names[name]) for name in _names(read)}
        slices = [Slices(own[k.constant], k.axis, torch.from_numpy(read.group.slices[k])) for k in read.keys]
        choosing = Choosing(slices, loss, network.sizes, criterion.rate)
        found = choose_greedily(choosing, most, tolerance=criterion.stop, at_once=criterion.at_once)
        with torch.no_grad():
            for name, weight in own.items():
                network.parameter(name).copy_(weight)
        return found

    def _targets(self, place: torch.device) -> Callable[[int], Sequence[Tensor]]:
        """What the given network makes there, of every batch."""
        part = behind(self.given, self.read.outputs, self.read.outputs, self.network.data, place)

        def targets(number: int) -> Sequence[Tensor]:
            with torch.no_grad():
                return part(number)

        return targets


def _names(read: _Read) -> list[str]:
    return list(dict.fromkeys(key.constant for key in read.keys))
