"""How much the whole network minds that a group is cut: divergence of its outputs at a few widths, without labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...passes.algebra.least_squares import Refit, refit_bias, refit_full
from ...passes.algebra.moments import MomentsSet
from ...passes.channels.affine import AffineConsumer, affine_consumers, write_refit
from ...passes.channels.groups import ChannelGroups
from ...passes.channels.node_view import NodeView
from ...passes.channels.silence import silence
from ...passes.graph.model import Graph
from ...passes.rewrite.undo import undone
from ...passes.selection.ranking import Ranking
from ..data.sources import Batch
from ..device import Device
from ..progress import Count, silent
from .evaluate import behind_indices, comparable, compare_outputs, top1
from .segments import Frontier

Array = np.ndarray
LEVELS = (0.25, 0.5, 0.75)  # shares of a group's units that go


class Levels(NamedTuple):
    """How much of a group goes at once: shares of its units, and of these groups all of them as well.

    logits: whether classifiers are compared by their logits, which few samples tell, else by the KL divergence
    """

    shares: Sequence[float] = LEVELS
    whole: Collection[str] = ()
    logits: bool = False


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """How far the outputs move when one group alone is cut: {group: {units that go: divergence}}.

    kind: "kl", nats a sample, for classifiers, else "relative mse".
    top1: {group: {units that go: share of the samples that are right}}, with no unit gone as well; empty without labels
    """

    kind: str
    values: Mapping[str, Mapping[int, float]]
    top1: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


def measure_sensitivity(
    groups: ChannelGroups,
    rankings: Mapping[str, Ranking],
    moments: MomentsSet | None,
    data: Iterable[Batch],
    *,
    levels: Levels = Levels(),  # noqa: B008 - a value
    device: Device = "auto",
    progress: Count = silent,
) -> Sensitivities:
    """Each group that has a ranking loses a share of its units (`levels`), alone, and the outputs are compared.

    Its consumers are refitted on the moments, where they are given. Only what comes after the first of them is run.
    With labels for a classifier the accuracy is measured as well (Li et al., ICLR 2017, section 3.2).
    """
    batches = list(data)
    frontier = Frontier(_showing(groups.labelled.graph), batches, device=device)
    reference = [comparable(found) for found in frontier.outputs()]
    working = groups.labelled.graph.copy()
    consumers, first = _consumers(groups), _first_readers(groups)
    labels = [batch.labels for batch in batches]
    whole = top1(reference, labels)
    values: dict[str, dict[int, float]] = {name: {} for name in rankings}
    right: dict[str, dict[int, float]] = {} if whole is None else {name: {0: whole} for name in rankings}
    kind = ""
    for number, name in enumerate(sorted(rankings, key=lambda name: first[name]), 1):
        group, order = groups[name], rankings[name].order
        if first[name] >= 0:
            frontier.advance(first[name])
        for count in level_counts(group.units, levels.shares, whole=name in levels.whole):
            with undone(working) as graph:
                silence_and_refit(graph, groups, consumers[name], group.components[order[:count]], moments)
                made = list(frontier.outputs(graph))
            found = compare_outputs(reference, made, frontier.counts, logits=levels.logits)
            values[name][count], kind = found.value, found.kind
            if (share := top1(made, labels)) is not None and whole is not None:
                right[name][count] = share
        progress(number, len(rankings))
    return Sensitivities(kind, values, right)


def _showing(graph: Graph) -> Graph:
    """The graph, with outputs that can be compared: in the place of indices what they are taken of."""
    chosen = behind_indices(graph.source)
    if not chosen:
        return graph
    shown = graph.copy()
    tensors = shown.gs.tensors()
    shown.gs.outputs = [tensors[chosen.get(tensor.name, tensor.name)] for tensor in shown.gs.outputs]
    return shown


def _consumers(groups: ChannelGroups) -> dict[str, list[AffineConsumer]]:
    """The consumers of every group that can be refitted, in the order of the graph."""
    owner = {component: group.name for group in groups.free for component in group.components.tolist()}
    consumers: dict[str, list[AffineConsumer]] = {group.name: [] for group in groups.groups}
    for consumer in affine_consumers(groups.labelled):
        components = groups.component[consumer.inputs[consumer.inputs >= 0]]
        for name in {owner[c] for c in np.unique(components).tolist() if c in owner}:
            consumers[name].append(consumer)
    return consumers


def _first_readers(groups: ChannelGroups) -> dict[str, int]:
    """The first node that a removal from each group touches behind what makes it; -1 where that is not known."""
    labelled = groups.labelled
    owner = {component: group.name for group in groups.free for component in group.components.tolist()}
    read = [(consumer.node, consumer.labels) for consumer in labelled.consumers] + labelled.coupled
    read += [(mask.node, NodeView(labelled, mask.node).axes(mask.input)[mask.axis]) for mask in labelled.masks]
    first: dict[str, int] = {}
    for node, array in sorted(read, key=lambda pair: pair[0]):
        for component in np.unique(groups.component[array[array >= 0]]).tolist():
            first.setdefault(owner.get(component, ""), node)
    return {group.name: first.get(group.name, -1) for group in groups.groups}


def level_counts(units: int, levels: Sequence[float] = LEVELS, *, whole: bool = False) -> list[int]:
    """How many of so many units go at each level, where that is not none; all only where `whole`."""
    return sorted({*(int(level * units) for level in levels), units} - {0, -1 if whole else units})


def scaled_by_network(rankings: Mapping[str, Ranking], measured: Sensitivities) -> dict[str, Ranking]:
    """The rankings with harm in units of the network's output.

    Between the levels the harm follows the ranking's own curve: a monotone piecewise-linear map takes it to the
    divergence.
    """
    return {
        name: Ranking(
            ranking.order, _mapped(ranking.harm, list(measured.values[name]), list(measured.values[name].values()))
        )
        for name, ranking in rankings.items()
    }


def _mapped(harm: Array, counts: list[int], values: list[float]) -> Array:
    """The harm curve through the measured points (harm at a count, divergence), and on in proportion after them."""
    if not counts:
        return harm * 0 + np.inf
    x = np.concatenate([[0.0], harm[np.asarray(counts) - 1]])
    y = np.maximum.accumulate(np.concatenate([[0.0], values]))
    x = x + np.arange(len(x)) * 1e-12  # strictly rising
    mapped = np.interp(harm, x, y)
    beyond = harm > x[-1]
    slope = (y[-1] - y[-2]) / max(x[-1] - x[-2], 1e-12)
    mapped[beyond] = y[-1] + np.maximum(slope, y[-1] / max(x[-1], 1e-12)) * (harm[beyond] - x[-1])
    return np.maximum.accumulate(mapped)


def silence_and_refit(
    graph: Graph,
    groups: ChannelGroups,
    consumers: Sequence[AffineConsumer],
    components: Array,
    moments: MomentsSet | None,
) -> None:
    """Let nobody in a copy of the original read these units: weights zero, and what stays of the consumers refitted."""
    gone = np.zeros(int(groups.component.max()) + 1, bool)
    gone[components] = True
    silence(groups.labelled, gone[groups.component], graph)
    for consumer in consumers:
        cut = (consumer.inputs >= 0) & gone[groups.component[np.maximum(consumer.inputs, 0)]]
        if cut.any():
            W, kept = consumer.W.copy(), np.flatnonzero(~cut)
            refit = _refit(consumer, kept, moments)
            W[:, cut] = 0
            W[:, kept] = refit.weight
            write_refit(graph, consumer, Refit(W, refit.bias))


def _refit(consumer: AffineConsumer, kept: Array, moments: MomentsSet | None) -> Refit:
    found = None if moments is None else moments.pooled(consumer.uses)
    if found is not None:
        if not len(kept):
            return refit_bias(consumer.W, consumer.b, found.mean, kept)
        if found.second is not None:
            return refit_full(consumer.W, consumer.b, found.second, found.mean, kept)
    return Refit(consumer.W[:, kept], consumer.b)
