"""One-shot refit: what stays of every consumer of a cut tensor makes up for what went, from the moments alone.

Inputs and targets are those of the original network; errors of earlier layers are not seen. `runtime.reconstruct` is
the sequential form, which needs the data again, `runtime.torch` has what may follow it. KINDS: every kind
of refit, and what it needs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

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
    "blocks": frozenset({"samples"}),
    "distill": frozenset({"samples"}),
}

_NO_RIDGE = 1e-9  # the paper's fit has none, which fails where channels are dead


def refit_once(
    labelled: LabelledGraph, removed: Array, cut: Graph, moments: MomentsSet, kind: str, apart: Array | None = None
) -> int:
    """Refit the consumers of `cut` in place and say how many.

    labels: of the original; removed: one bool a label, what was cut; kind: "bias", "channel", "scalar"
    ("channel" without a bias, as in ThiNet) or "full" (least_squares); apart: one bool a label, what "bias" leaves out
    because `constant_maps` puts it in.
    """
    return Refits(labelled, moments, kind, limit=0).write(removed, cut, apart)


class Refits:
    """Refits of many cuts of one network: a layer's depends on what it still reads alone, and is kept for the next cut.

    limit: bytes of what is kept at most; what was used longest ago goes. bytes: of what is kept now.
    """

    def __init__(self, labelled: LabelledGraph, moments: MomentsSet, kind: str, limit: int = 256 << 20) -> None:
        self._consumers = tuple(affine_consumers(labelled))
        self._moments, self._kind, self._limit = moments, kind, limit
        self._kept: OrderedDict[tuple[str, bytes], Refit | None] = OrderedDict()
        self.bytes = 0

    def write(self, removed: Array, cut: Graph, apart: Array | None = None) -> int:
        """`refit_once`."""
        done = 0
        there = {tensor.name for node in cut.gs.nodes for tensor in node.outputs}
        for consumer in self._consumers:
            inputs = np.flatnonzero(kept(consumer.inputs, removed))
            if len(inputs) == len(consumer.inputs) or not there.issuperset(consumer.uses):
                continue
            refit = self._of(consumer, inputs) if apart is None else self._but_for(consumer, inputs, apart)
            if refit is not None:
                outputs = np.flatnonzero(kept(consumer.outputs, removed))
                write_refit(cut, consumer, Refit(refit.weight[outputs], refit.bias[outputs]))
                done += 1
        return done

    def _of(self, consumer: AffineConsumer, inputs: Array) -> Refit | None:
        key = (consumer.name, inputs.tobytes())
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._moments.pooled(consumer.uses)
        refit = None if found is None else _refit(consumer, inputs, found, self._kind)
        if self._limit:
            self._kept[key] = refit
            self.bytes += _size(refit)
            while self.bytes > self._limit and len(self._kept) > 1:
                self.bytes -= _size(self._kept.popitem(last=False)[1])
        return refit

    def _but_for(self, consumer: AffineConsumer, inputs: Array, apart: Array) -> Refit | None:
        """The refit to all channels but those that another pass puts in."""
        found = self._moments.pooled(consumer.uses)
        if found is None:
            return None
        others = np.repeat(kept(consumer.inputs, apart), found.mean.size // len(consumer.inputs))
        return _refit(consumer, inputs, replace(found, mean=np.where(others, found.mean, 0)), self._kind)


def _size(refit: Refit | None) -> int:
    return 0 if refit is None else refit.weight.nbytes + refit.bias.nbytes


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
