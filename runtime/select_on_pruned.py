"""Channel Pruning's selection: layer by layer, on what the network delivers as it is pruned so far.

A consumer reads u' from the network whose earlier layers are pruned and refitted, and is to give what the original
does: y, or where it goes into a residual sum, that sum less the shortcut as it is now; behind its BatchNormalization,
so that an export with folded ones has the same targets. The LASSO of the channels' contributions chooses which of them
stay, least squares refit the weights, and the next layer sees the result. A shortcut's projection is refitted before.
Source: He, Zhang, Sun, Channel pruning for accelerating very deep neural networks, ICCV 2017, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..passes.algebra.gram import channel_gram, power_of_two
from ..passes.algebra.lasso import lasso_choice
from ..passes.algebra.least_squares import Refit
from ..passes.algebra.normal_equations import NormalEquations
from ..passes.channels.affine import AffineConsumer, affine_consumers, write_refit
from ..passes.channels.groups import ChannelGroup, ChannelGroups
from ..passes.graph.export import to_model
from ..passes.graph.model import Graph
from ..passes.rewrite.affine_path import AffinePath, AffinePaths
from ..passes.rewrite.taps import Taps, find_taps
from .data.sources import Batch
from .measure.calibrate import Calibration, iterate_rows
from .progress import Count, silent
from .refit.fits import upstream

Array = np.ndarray
_RIDGE = 1e-4  # relative, centred on the weights that are there; the paper's fit has none
_NOTHING = 1e-12  # a channel that is scaled by less than this share of the largest scale


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
    owners: dict[str, ChannelGroup] = {}
    for consumer in consumers:
        group = next((g for g in waiting.values() if run.units(g, consumer) is not None), None)
        if group is not None:
            owners[consumer.name] = waiting.pop(group.name)
    for number, (consumer, path) in enumerate(_in_order(run, consumers, owners), 1):
        group = owners.get(consumer.name)
        if group is not None or run.removed:
            run.prune(consumer, path, group, kept)
        progress(number, len(consumers))
    return run.removed


def _in_order(
    run: _Run, consumers: Sequence[AffineConsumer], owners: Collection[str]
) -> Iterator[tuple[AffineConsumer, AffinePath]]:
    """The consumers in the order of the graph, but for those that a residual sum adds to one that loses channels.

    Each with the place that it is fitted at. owners: names of the consumers that lose channels.
    """
    before, needs = upstream(run.groups.labelled, consumers)
    waiting, done = list(range(len(consumers))), 0
    while waiting:
        at = waiting[0]
        if consumers[at].name in owners:
            beside = run.path(consumers[at], lambda other: True).summands
            added = sum(before.get(name, 0) for name, _ in beside[:1])
            ready = [i for i in waiting[1:] if added >> i & 1 and not needs[i] & ~done]
            at = next((i for i in ready if not added >> at & 1 and consumers[i].name not in owners), at)
        waiting.remove(at)
        yield consumers[at], run.path(consumers[at], lambda other, past=done: not before.get(other, -1) & ~past)
        done |= 1 << at


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

    def path(self, consumer: AffineConsumer, known: Callable[[str], bool]) -> AffinePath:
        """Where the consumer is fitted. known: whether a tensor is there that may be added on the way."""
        shapes = self.groups.labelled.facts.shapes
        shape = shapes[consumer.name]
        form = (len(shape), consumer.layout.result, len(consumer.outputs))
        return AffinePaths(self.work)(consumer.name, form, lambda other: shapes.get(other) == shape and known(other))

    def prune(
        self, consumer: AffineConsumer, path: AffinePath, group: ChannelGroup | None, kept: Mapping[str, int]
    ) -> None:
        """Choose the group's units by what this consumer gets, and refit the consumer."""
        alive = ~self.groups.removed_labels(self.removed)[np.maximum(consumer.inputs, 0)] | (consumer.inputs < 0)
        sums, W = self._sums(consumer, path, alive), consumer.W * path.scale[:, None, None]
        if group is not None:
            units = self.units(group, consumer)
            assert units is not None
            stays = _chosen(W, sums, kept[group.name])
            self.removed[group.name] = tuple(sorted(units[~stays].tolist()))
            alive = stays
            sums = sums.of_inputs(np.repeat(alive, W.shape[2]))
        refit = sums.solve(W[:, alive], _RIDGE)
        lives = np.abs(path.scale) > _NOTHING * np.abs(path.scale).max(initial=0)
        safe = np.where(lives, path.scale, 1)
        weight = np.zeros_like(W)
        weight[:, alive] = np.where(lives[:, None, None], refit.weight / safe[:, None, None], consumer.W[:, alive])
        write_refit(self.work, consumer, Refit(weight, np.where(lives, (refit.bias - path.shift) / safe, consumer.b)))

    def _sums(self, consumer: AffineConsumer, path: AffinePath, alive: Array) -> NormalEquations:
        """Of the alive inputs as the network delivers them now, and what the consumer is to make of them."""
        dtypes = self.groups.labelled.facts.dtypes
        own = self.taps.only([consumer.name])
        beside = self.taps.at_output(consumer.name, [name for name, _ in path.summands], dtypes)
        now = iterate_rows(to_model(self.work), Taps((*own, *beside), own.sizes), self.data, self.settings)
        source = self.groups.labelled.graph.source
        target = self.taps.at_output(consumer.name, [path.tensor], dtypes)
        wanted = iterate_rows(source, target, self.data, self.settings)
        columns = np.repeat(alive, consumer.W.shape[2])
        sums = NormalEquations(int(columns.sum()), len(consumer.W))
        for (X, *others), (Z,) in zip(now, wanted, strict=True):
            for other, (_, factor) in zip(others, path.summands, strict=True):
                Z = Z - other * factor.astype(np.float32)  # noqa: PLW2901 - what is left of it
            sums.add(_multipliable(X[:, columns]), _multipliable(Z))
        return sums


def _multipliable(values: Array) -> Array:
    """In double precision where products in single would overflow or vanish."""
    return values if power_of_two(values) == 1 else values.astype(np.float64)


def _chosen(W: Array, sums: NormalEquations, keep: int) -> Array:
    """(C,) bool: the channels that the LASSO keeps. min E|y - sum_c b_c W_c u_c|^2 / 2 + lambda |b|_1, all centred."""
    second, cross = sums.covariances()
    C, k = W.shape[1:]
    wanted = np.einsum("jck,ckj->c", W, cross.reshape(C, k, len(W)))
    stays = np.zeros(C, bool)
    stays[lasso_choice(channel_gram(W, second), wanted, keep)] = True
    return stays
