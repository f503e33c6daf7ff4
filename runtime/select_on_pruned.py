"""Channel Pruning's selection: layer by layer, on what the network delivers as it is pruned so far.

A consumer reads u' from the network whose earlier layers are pruned and refitted, and is to give what the original
does: y, or where it goes into a residual sum, that sum less the shortcut as it is now. The LASSO of the channels'
contributions chooses which of them stay, least squares refit the weights, and the next layer sees the result.
Source: He, Zhang, Sun, Channel pruning for accelerating very deep neural networks, ICCV 2017, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from ..passes.algebra.gram import channel_gram
from ..passes.algebra.lasso import lasso_choice
from ..passes.algebra.least_squares import Refit
from ..passes.algebra.normal_equations import NormalEquations
from ..passes.channels.affine import AffineConsumer, affine_consumers, write_refit
from ..passes.channels.groups import ChannelGroup, ChannelGroups
from ..passes.graph.export import to_model
from ..passes.graph.model import Graph
from ..passes.rewrite.taps import Taps, find_taps
from .data.sources import Batch
from .measure.calibrate import Calibration, iterate_rows
from .progress import Count, silent

Array = np.ndarray
_RIDGE = 1e-4  # relative, centred on the weights that are there; the paper's fit has none


def select_on_pruned(
    groups: ChannelGroups,
    kept: Mapping[str, int],
    data: Iterable[Batch],
    settings: Calibration | None = None,
    progress: Count = silent,
) -> dict[str, tuple[int, ...]]:
    """The removed units, ascending, of each group when it keeps so many: those that the LASSO silences.

    kept: of the groups that are to be cut; a group that no layer reads with weights of its own is left out. The data
    are read twice for every layer behind the first cut, through the original and through the network so far.
    """
    run = _Run(groups, find_taps(groups.labelled), list(data), settings or Calibration(), groups.labelled.graph.copy())
    tapped = {name for tap in run.taps for name in tap.consumers if tap.groups == 1}
    consumers = [consumer for consumer in affine_consumers(groups.labelled) if consumer.name in tapped]
    waiting = {group.name: group for group in groups.free if group.name in kept}
    for number, consumer in enumerate(consumers, 1):
        group = next((g for g in waiting.values() if run.units(g, consumer) is not None), None)
        if group is not None:
            del waiting[group.name]
        if group is not None or run.removed:
            run.prune(consumer, group, kept)
        progress(number, len(consumers))
    return run.removed


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """work: the network so far, in the original's shapes: weights of removed inputs are zero."""

    groups: ChannelGroups
    taps: Taps
    data: list[Batch]
    settings: Calibration
    work: Graph
    removed: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def units(self, group: ChannelGroup, consumer: AffineConsumer) -> Array | None:
        """The unit that each channel of the consumer's input is, where it reads this group alone, each unit once."""
        component = np.where(consumer.inputs >= 0, self.groups.component[np.maximum(consumer.inputs, 0)], -1)
        if not np.array_equal(np.sort(component), np.sort(group.components)):
            return None
        order = np.argsort(group.components)
        return order[np.searchsorted(group.components[order], component)]

    def prune(self, consumer: AffineConsumer, group: ChannelGroup | None, kept: Mapping[str, int]) -> None:
        """Choose the group's units by what this consumer gets, and refit the consumer."""
        alive = ~self.groups.removed_labels(self.removed)[np.maximum(consumer.inputs, 0)] | (consumer.inputs < 0)
        sums = self._sums(consumer, alive)
        if group is not None:
            units = self.units(group, consumer)
            assert units is not None
            stays = _chosen(consumer.W, sums, kept[group.name])
            self.removed[group.name] = tuple(sorted(units[~stays].tolist()))
            alive = stays
            sums = sums.of_inputs(np.repeat(alive, consumer.W.shape[2]))
        refit = sums.solve(consumer.W[:, alive], _RIDGE)
        weight = np.zeros_like(consumer.W)
        weight[:, alive] = refit.weight
        write_refit(self.work, consumer, Refit(weight, refit.bias))

    def _sums(self, consumer: AffineConsumer, alive: Array) -> NormalEquations:
        """Of the alive inputs as the network delivers them now, and what the consumer is to make of them."""
        target, shortcut = _residual(self.work, consumer.name)
        own = self.taps.only([consumer.name])
        beside = () if shortcut is None else self.taps.outputs({consumer.name: shortcut})
        now = iterate_rows(to_model(self.work), Taps((*own, *beside), own.sizes), self.data, self.settings)
        source = self.groups.labelled.graph.source
        wanted = iterate_rows(source, self.taps.outputs({consumer.name: target}), self.data, self.settings)
        columns = np.repeat(alive, consumer.W.shape[2])
        sums = NormalEquations(int(columns.sum()), len(consumer.W))
        for rows, (Y,) in zip(now, wanted, strict=True):
            sums.add(rows[0][:, columns], Y if shortcut is None else Y - rows[1])
        return sums


def _chosen(W: Array, sums: NormalEquations, keep: int) -> Array:
    """(C,) bool: the channels that the LASSO keeps. min E|y - sum_c b_c W_c u_c|^2 / 2 + lambda |b|_1, all centred."""
    second, cross = sums.covariances()
    C, k = W.shape[1:]
    wanted = np.einsum("jck,ckj->c", W, cross.reshape(C, k, len(W)))
    stays = np.zeros(C, bool)
    stays[lasso_choice(channel_gram(W, second), wanted, keep)] = True
    return stays


def _residual(graph: Graph, name: str) -> tuple[str, str | None]:
    """The sum that the tensor goes into and the other summand, where that one is made before it; else itself."""
    position = {t.name: i for i, node in enumerate(graph.gs.nodes) for t in node.outputs}
    readers = graph.gs.nodes[position[name]].outputs[0].outputs
    if len(readers) != 1 or readers[0].op != "Add":
        return name, None
    add = readers[0]
    other = add.inputs[1] if add.inputs[0].name == name else add.inputs[0]
    if isinstance(other, gs.Constant) or position.get(other.name, len(position)) > position[name]:
        return name, None
    return add.outputs[0].name, other.name
