"""What the criteria of moments see of a group: every node that reads its units, as a weight and a second moment."""

from __future__ import annotations

import numpy as np

from ....algebra.moments import Moments
from ....algebra.removal import Objective, columns, relative
from ....channels.affine import AffineConsumer
from ....channels.groups import ChannelGroup
from ....needs import met
from ...ranking import Evidence

Array = np.ndarray


def group_objectives(group: ChannelGroup, evidence: Evidence, *, centred: bool) -> list[Objective]:
    """The group's consumers with its units first: channel u of W is unit u, k kernel positions for each of its slices.

    After the units come the consumer's other channels, which stay, in blocks of the same size; zeros fill up so that
    all consumers have as many. centred: the covariance, for refits with a bias, else the second moment. Each counts its
    relative error. Consumers without moments are left out.
    """
    matrices = [
        _arrange(evidence.matrix(c), places, moments, centred) for c, places, moments in _read_by(group, evidence)
    ]
    most = max((W.shape[1] for W, _ in matrices), default=0)
    return [relative(*_filled(W, S, most)) for W, S in matrices]


def activations(group: ChannelGroup, evidence: Evidence) -> list[tuple[str, Array]]:
    """The activations that the group's consumers read, with the (units, m) channels of each unit; none twice.

    They stand in front of pools and reshapes (see channels/activations.py).
    """
    labelled, component, tensors = evidence.groups.labelled, evidence.groups.component, {}
    for consumer, _, _ in _read_by(group, evidence):
        for site in evidence.activations[consumer.data]:
            inputs = labelled.axes[site.tensor][site.axis]
            places = _places(group, np.where(inputs >= 0, component[np.maximum(inputs, 0)], -1))
            if places is not None:
                tensors[site.tensor] = places
    return list(tensors.items())


def _places(group: ChannelGroup, mine: Array) -> Array | None:
    """(units, m) indices of an axis at which each unit is; mine: the component at each index.

    None where the axis does not have the same number of every unit.
    """
    places = np.flatnonzero(np.isin(mine, group.components))
    if not places.size or places.size % group.units:
        return None
    rank = np.argsort(group.components)[np.searchsorted(np.sort(group.components), mine[places])]
    return places[np.argsort(rank, kind="stable")].reshape(group.units, -1)


def _read_by(group: ChannelGroup, evidence: Evidence) -> list[tuple[AffineConsumer, Array, Moments]]:
    moments, component = met(evidence.moments, "moments"), evidence.groups.component
    entries = []
    for consumer in evidence.consumers:
        found = moments.pooled(consumer.uses)
        places = _places(group, np.where(consumer.inputs >= 0, component[consumer.inputs], -1))
        if places is not None and found is not None:
            entries.append((consumer, places, found))
    return entries


def _arrange(W: Array, places: Array, moments: Moments, centred: bool) -> tuple[Array, Array]:
    """(W, S) with the channels of unit 0 first, then those of unit 1 and so on, then the others."""
    m = places.shape[1]
    n, C, k = W.shape
    rest = np.setdiff1d(np.arange(C), places)
    order = np.concatenate([places.ravel(), rest])
    fill = -len(rest) % m
    W = np.concatenate([W[:, order], np.zeros((n, fill, k))], axis=1).reshape(n, -1, m * k)
    S = (moments.covariance if centred else moments.uncentred()[0])[np.ix_(columns(order, k), columns(order, k))]
    return W, _padded(S, fill * k)


def _padded(S: Array, more: int) -> Array:
    if not more:
        return S
    padded = np.zeros((len(S) + more, len(S) + more))
    padded[: len(S), : len(S)] = S
    padded[range(len(S), len(padded)), range(len(S), len(padded))] = S.diagonal().mean() or 1.0
    return padded


def _filled(W: Array, S: Array, most: int) -> tuple[Array, Array]:
    """The consumer with `most` channels: what is added has no weight."""
    n, C, k = W.shape
    return np.concatenate([W, np.zeros((n, most - C, k))], axis=1), _padded(S, (most - C) * k)
