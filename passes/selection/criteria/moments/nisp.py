"""Neuron importance score propagation. Yu et al., NISP, CVPR 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....algebra.infinite_selection import infinite_selection
from ....algebra.moments import Moments
from ....channels.affine import weight_matrices
from ....channels.groups import ChannelGroup
from ....channels.labels import Consumer, LabelledGraph
from ....graph.model import constant_values
from ....needs import Need, met
from ...ranking import Evidence, Ranking
from ..weights.l2 import L2

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Nisp:
    """Importance of the final responses, carried back through the weights: s_l = |W_{l+1}|^T s_{l+1}; least first.

    The final responses are what the last layers read, scored by infinite feature selection on calibration data. A
    channel's score is the sum over its positions, so that a convolution takes sum_k |W_jck| from filter j to channel c;
    what is between layers (BatchNormalization, activations, pooling, depthwise filters) is left out, residual sums add.
    Where several channels of a layer are one unit (groups of a convolution), each has an equal share of its score. A
    group that no importance reaches is ranked by its weights.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Harm is the sum of the scores of what is gone."""
        scores = evidence.scores(propagated)[group.components]
        return Ranking.by_score(scores) if scores.any() else L2().rank(group, evidence)


def propagated(evidence: Evidence) -> Array:
    """The score of every component of labels, float64; consumers from last to first, each after what follows."""
    moments = met(evidence.moments, "moments")
    labelled, component = evidence.groups.labelled, evidence.groups.component
    nodes = labelled.graph.gs.nodes
    consumers = {consumer.node: consumer for consumer in labelled.consumers}
    last = _last(labelled, set(consumers))
    scores = np.zeros(int(component.max(initial=-1)) + 1)
    for number in sorted(consumers, reverse=True):
        inputs, name = consumers[number].labels, nodes[number].outputs[0].name
        if number in last:
            found = _responses(moments.groups(name), len(inputs)) if name in moments else None
        else:
            found = _through(labelled, consumers[number], scores, component)
        if found is not None:
            real = inputs >= 0
            np.add.at(scores, component[inputs[real]], found[real])
    return scores


def _last(labelled: LabelledGraph, readers: set[int]) -> set[int]:
    """The readers with no other reader between them and an output of the graph."""
    number = {id(node): i for i, node in enumerate(labelled.graph.gs.nodes)}
    waiting, seen, last = list(labelled.graph.gs.outputs), set(), set()
    while waiting:
        for node in waiting.pop().inputs:
            if id(node) not in seen:
                seen.add(id(node))
                if number[id(node)] in readers:
                    last.add(number[id(node)])
                else:
                    waiting += node.inputs
    return last


def _responses(moments: tuple[Moments, ...], channels: int) -> Array:
    """Scores of the channels that a last layer reads; those of a group convolution one group after another."""
    return np.concatenate([_selected(m) for m in moments])[:channels]


def _selected(moments: Moments) -> Array:
    if moments.second is None:  # too wide for a covariance: the spread alone
        assert moments.samples is not None
        return moments.samples.std(0, dtype=np.float64).reshape(moments.channels, -1).mean(1)
    by_tap = moments.covariance.reshape(moments.channels, moments.kernel, moments.channels, moments.kernel)
    return infinite_selection(np.einsum("itjt->ij", by_tap) / moments.kernel)


def _through(labelled: LabelledGraph, consumer: Consumer, scores: Array, component: Array) -> Array | None:
    """What the inputs of a layer get from its outputs, (C,); None for a form of its own (Einsum, computed weights)."""
    node, layout = labelled.graph.gs.nodes[consumer.node], consumer.layout
    values = constant_values(node.inputs[consumer.weight_at.input])
    if layout is None or values is None or values.dtype.kind != "f":
        return None
    W = weight_matrices(np.abs(values.astype(np.float64)), layout)
    if W is None:
        return None
    outputs = labelled.axes[node.outputs[0].name][layout.result]
    unit = component[np.maximum(outputs, 0)]
    after = np.where(outputs >= 0, scores[unit] / np.bincount(unit)[unit], 0.0)
    return np.einsum("gjc,gj->gc", W.sum(-1), after.reshape(layout.groups, -1)).ravel()
