"""One-shot refit: what stays of every consumer of a cut tensor makes up for what went, from the moments alone.

Inputs and targets are those of the original network; errors of earlier layers are not seen. `runtime.reconstruct` is
the sequential form, which needs the data again. KINDS: every kind of refit, and what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..algebra.least_squares import Refit, refit_bias, refit_channel, refit_full
from ..algebra.moments import Moments, MomentsSet
from ..channels.affine import AffineConsumer, affine_consumers, write_refit
from ..channels.constants import kept
from ..channels.labels import LabelledGraph
from ..graph.model import Graph
from ..needs import Need

Array = np.ndarray
KINDS: Mapping[str, frozenset[Need]] = {
    "none": frozenset(),
    "bias": frozenset({"moments"}),
    "channel": frozenset({"moments"}),
    "scalar": frozenset({"moments"}),
    "full": frozenset({"moments"}),
    "sequential": frozenset({"samples"}),
}

_NO_RIDGE = 1e-9  # the paper's fit has none, which fails where channels are dead


def refit_once(labelled: LabelledGraph, removed: Array, cut: Graph, moments: MomentsSet, kind: str) -> int:
    """Refit the consumers of `cut` in place and say how many.

    labels: of the original; removed: one bool a label, what was cut; kind: "bias", "channel", "scalar"
    ("channel" without a bias, as in ThiNet) or "full" (least_squares).
    """
    done = 0
    there = {tensor.name for node in cut.gs.nodes for tensor in node.outputs}
    for consumer in affine_consumers(labelled):
        inputs = np.flatnonzero(kept(consumer.inputs, removed))
        found = moments.pooled(consumer.uses)
        if len(inputs) == len(consumer.inputs) or found is None or not there.issuperset(consumer.uses):
            continue
        refit = _refit(consumer, inputs, found, kind)
        if refit is not None:
            outputs = np.flatnonzero(kept(consumer.outputs, removed))
            write_refit(cut, consumer, Refit(refit.weight[outputs], refit.bias[outputs]))
            done += 1
    return done


def mean_outputs(labelled: LabelledGraph, removed: Array, moments: MomentsSet) -> dict[str, Array]:
    """What each consumer that reads nothing more gave on average, by its output: b + W mu, (outputs,) float64.

    Of all constants it is nearest to what the consumer computed; `apply_removal` takes it.
    """
    nothing, means = np.zeros(0, np.int64), {}
    for consumer in affine_consumers(labelled):
        if not kept(consumer.inputs, removed).any():
            for use in consumer.uses:
                found = moments.pooled((use,))
                if found is not None:
                    means[use] = refit_bias(consumer.W, consumer.b, found.mean, nothing).bias
    return means


def _refit(consumer: AffineConsumer, kept: Array, moments: Moments, kind: str) -> Refit | None:
    W, b = consumer.W, consumer.b
    if kind == "bias":
        return refit_bias(W, b, moments.mean, kept)
    if moments.second is None and (moments.samples is None or kind in {"channel", "scalar"}):
        return None
    A, mu = moments.uncentred()
    if kind == "scalar":
        return refit_channel(W, b, A, np.zeros_like(mu), kept, _NO_RIDGE)
    return (refit_channel if kind == "channel" else refit_full)(W, b, A, mu, kept)
