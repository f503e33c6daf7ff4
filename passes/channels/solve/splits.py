"""Which axis of a split may lose entries: heads or their dimensions, groups or the positions inside them.

Axes that must lose entries together are a class (their labels are tied). Classes that meet in a split exclude each
other. Of each cluster of classes every maximal choice is tried, all clusters at once, and the one that leaves the most
weights free is taken; where that is equal, one whose axes are not summed over by two activations (whole heads rather
than their dimensions), then the one with more units. Clusters that split the same channels are weighed together too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..labels import LabelledGraph, Split
from ..node_view import NodeView
from .components import components

Array = np.ndarray
Ties = list[tuple[Array, Array]]
Pins = list[tuple[Array, str]]


def resolve_splits(labelled: LabelledGraph) -> tuple[Ties, Pins]:
    """The ties and pins that the splits amount to, once it is decided which of their axes lives."""
    if not labelled.splits:
        return [], []
    clusters = _clusters(labelled)
    return _say(labelled, clusters, _choose(labelled, clusters))


def _choose(labelled: LabelledGraph, clusters: list[_Cluster]) -> list[int]:
    """The option of each cluster: the best of its own, unless its neighbours do better together with one number."""
    options = max(len(c.options) for c in clusters)
    if options == 1:
        return [0] * len(clusters)
    weight, near = _label_weights(labelled), _neighbours(labelled, clusters)
    trials = [[min(number, len(c.options) - 1) for c in clusters] for number in range(options)]
    scores = [_scores(labelled, clusters, trial, weight, np.arange(len(clusters))) for trial in trials]
    own = [max(range(len(c.options)), key=lambda n, i=i: scores[n][i]) for i, c in enumerate(clusters)]
    if len(np.unique(near)) == len(clusters):
        return own
    trials = [own, *trials]
    scores = [_scores(labelled, clusters, trial, weight, near) for trial in trials]
    best = [max(range(len(trials)), key=lambda n, i=i: scores[n][i]) for i in near.tolist()]
    return [trials[n][i] for i, n in enumerate(best)]


def _neighbours(labelled: LabelledGraph, clusters: list[_Cluster]) -> Array:
    """The neighbourhood of each cluster: neighbours split the same channels, as do grouped convolutions in a row."""
    component = components(labelled.count, labelled.ties)
    first: dict[int, int] = {}
    edges: list[tuple[int, int]] = []
    for i, cluster in enumerate(clusters):
        edges += [(first.setdefault(c, i), i) for c in _members(labelled, cluster, component).tolist()]
    return _connect(len(clusters), edges)


def _members(labelled: LabelledGraph, cluster: _Cluster, component: Array) -> Array:
    """Components of the channels that a cluster splits."""
    flat = np.concatenate([labelled.splits[i].flat.reshape(-1) for i in cluster.splits])
    return np.unique(component[flat[flat >= 0]])


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Splits that are decided together.

    splits: their numbers
    options: the choices; each names the axis that stays free in every split, None where none does
    """

    splits: list[int]
    options: list[dict[int, int | None]]


def _candidates(split: Split) -> list[int]:
    return [k for k, axis in enumerate(split.axes) if len(axis) > 1 and (axis >= 0).any()]


def _clusters(labelled: LabelledGraph) -> list[_Cluster]:
    component = components(labelled.count, labelled.ties)
    nodes = [(i, k) for i, split in enumerate(labelled.splits) for k in _candidates(split)]
    classes = _classes(labelled, nodes, component)
    members: dict[int, list[tuple[int, int]]] = {}
    for node, c in zip(nodes, classes, strict=True):
        members.setdefault(c, []).append(node)
    of_split: dict[int, list[int]] = {i: [] for i in range(len(labelled.splits))}
    for (i, _), c in zip(nodes, classes, strict=True):
        of_split[i].append(c)
    parts = _connect(len(members), [(c[0], other) for c in of_split.values() if c for other in c[1:]])
    clusters: list[_Cluster] = []
    for part in range(int(parts.max(initial=-1)) + 1):
        own = [c for c in members if parts[c] == part]
        splits = sorted({i for c in own for i, _ in members[c]})
        clusters.append(_Cluster(splits, _options(own, splits, members)))
    lonely = [i for i, c in of_split.items() if not c]
    clusters += [_Cluster([i], [{i: None}]) for i in lonely]
    return clusters


def _classes(labelled: LabelledGraph, nodes: list[tuple[int, int]], component: Array) -> list[int]:
    """Number of the class of each (split, axis): axes are of one class where a channel of theirs is tied."""
    number = int(component.max(initial=-1)) + 1
    rows, columns = [], []
    for n, (i, k) in enumerate(nodes):
        axis = labelled.splits[i].axes[k]
        touched = np.unique(component[axis[axis >= 0]])
        rows.append(np.full(len(touched), number + n))
        columns.append(touched)
    if not nodes:
        return []
    row, column = np.concatenate(rows), np.concatenate(columns)
    size = number + len(nodes)
    component_of = connected_components(
        coo_matrix((np.ones(len(row), bool), (row, column)), shape=(size, size)), directed=False
    )[1]
    return np.unique(component_of[number:], return_inverse=True)[1].tolist()


def _connect(count: int, edges: list[tuple[int, int]]) -> Array:
    if not count:
        return np.zeros(0, np.int64)
    row, column = [e[0] for e in edges], [e[1] for e in edges]
    return connected_components(
        coo_matrix((np.ones(len(row), bool), (row, column)), shape=(count, count)), directed=False
    )[1]


def _options(
    own: list[int], splits: list[int], members: dict[int, list[tuple[int, int]]]
) -> list[dict[int, int | None]]:
    """Every class once as the first to live, then all others that exclude none of the living, in order."""
    options: list[dict[int, int | None]] = []
    for first in own:
        alive: dict[int, int | None] = dict.fromkeys(splits)
        for c in [first, *(c for c in own if c != first)]:
            where = members[c]
            clash = any(alive[i] is not None for i, _ in where) or len({i for i, _ in where}) < len(where)
            if not clash:
                alive.update(where)
        if alive not in options:
            options.append(alive)
    return options


def _say(labelled: LabelledGraph, clusters: list[_Cluster], chosen: list[int]) -> tuple[Ties, Pins]:
    ties: Ties = []
    pins: Pins = []
    for cluster, number in zip(clusters, chosen, strict=True):
        for i, alive in cluster.options[number].items():
            split = labelled.splits[i]
            shape = "x".join(str(n) for n in split.flat.shape)
            for k, axis in enumerate(split.axes):
                if k != alive and (axis >= 0).any():
                    reason = f"at {split.where} channels stand as {shape}, and entries of another axis go"
                    pins.append((axis[axis >= 0], reason))
            if alive is None:
                flat = split.flat[split.flat >= 0]
                pins.append((flat, f"at {split.where} channels stand as {shape}, none of whose axes can lose entries"))
                continue
            view = [1] * split.flat.ndim
            view[alive] = -1
            line = np.broadcast_to(split.axes[alive].reshape(view), split.flat.shape).reshape(-1)
            _tie(split.flat.reshape(-1), line, split.where, ties, pins)
    return ties, pins


def _tie(first: Array, second: Array, where: str, ties: Ties, pins: Pins) -> None:
    for a, b in ((first, second), (second, first)):
        stuck = b[(a < 0) & (b >= 0)]
        if stuck.size:
            pins.append((stuck, f"at {where} it meets positions (batch or space), which are not channels"))
    both = (first >= 0) & (second >= 0)
    ties.append((first[both], second[both]))


def _label_weights(labelled: LabelledGraph) -> Array:
    """Elements of the constants' slices that belong to each label."""
    weight = np.zeros(labelled.count)
    for constant in labelled.constants.values():
        size = np.prod([len(a) for a in constant.labels])
        for array in constant.labels:
            if array.size and array[0] >= 0:
                weight[array] += size / len(array)
    return weight


def _scores(
    labelled: LabelledGraph, clusters: list[_Cluster], chosen: list[int], weight: Array, near: Array
) -> list[tuple[float, ...]]:
    """Of each neighbourhood: free weights, minus the axes summed over by two activations, units."""
    ties, pins = _say(labelled, clusters, chosen)
    component = components(labelled.count, [*labelled.ties, *ties])
    number = int(component.max(initial=-1)) + 1
    total = np.bincount(component, weight, number)
    free = np.ones(number, bool)
    for array, _ in [*labelled.pins, *pins]:
        free[component[array]] = False
    summed = np.zeros(number, bool)
    for mask in labelled.masks:
        array = NodeView(labelled, mask.node).axes(mask.input)[mask.axis]
        summed[component[array[array >= 0]]] = True
    members: list[list[Array]] = [[] for _ in range(int(near.max()) + 1)]
    for cluster, neighbourhood in zip(clusters, near.tolist(), strict=True):
        members[neighbourhood].append(_members(labelled, cluster, component))
    scores = []
    for parts in members:
        units = np.unique(np.concatenate(parts))
        units = units[free[units]]
        scores.append((float(total[units].sum()), -float(summed[units].any()), float(len(units))))
    return scores
