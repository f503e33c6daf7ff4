"""Pairs of layers with nothing but an activation between them that lost channels: after their own fits, together.

What the first keeps need not be what the original had there. Both are fitted to what the original has behind the
second (`passes/algebra/layer/pair.py`), on whole maps of the first samples, which the runs of the second's own refit
show as well: no run more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from ...passes.algebra.layer.activation_functions import ActivationFunction
from ...passes.algebra.layer.pair import Maps, PairFit
from ...passes.channels.affine import affine_consumers, dequantising
from ...passes.channels.constants import kept
from ...passes.channels.labels import LabelledGraph
from ...passes.graph.model import Graph, constant_values
from ...passes.rewrite.affine_path import AffinePaths
from ...passes.rewrite.taps import Tap, Taps, find_taps
from ..effort import Effort
from .fits import Fit

Array = np.ndarray
_BYTES = 128 << 20  # of the maps of a pair
_LEAST = 16  # samples that are worth it, an eighth of which judges
_FLOAT = 4  # bytes: of half precision nothing is trained, small steps would be lost


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two layers.

    rows: of the first's output and of the second's, each with the rows of its input under the kernel, -1 for padding
    reads: the tap of what the first reads
    samples: of the data
    """

    first: Fit
    second: Fit
    rows: tuple[Array, Array]
    effort: Effort
    reads: Tap
    samples: int

    def whole(self, tap: Tap) -> Tap:
        """The same tensor, all positions of so many of the first samples as the pair is fitted on."""
        return replace(
            tap, grid=tap.inner, table=np.arange(tap.inner)[:, None], most=tap.inner, groups=1, first=self.on
        )

    def inputs(self, summands: Sequence[Tap]) -> list[Tap]:
        """What the pair reads of the cut network; summands: taps of what is added to the second's output."""
        return [self.whole(tap) for tap in (self.reads, *summands)]

    @property
    def on(self) -> int:
        """On how many of the samples it is fitted, within what time and memory there is."""
        grid, channels = len(self.rows[1]), len(self.first.inputs) + 3 * len(self.second.outputs)
        return min(self.effort.paired(self.samples, grid), _BYTES // (4 * max(grid, len(self.rows[0])) * channels))

    def fit(self, graph: Graph, parts: Sequence[Sequence[Array]], seed: int) -> bool:
        """Write better weights of both into the graph; whether there are any.

        parts: batch by batch the rows of `inputs` and, in the end, of the original behind the second layer.
        """
        read, *added, wanted = (np.concatenate(tensor) for tensor in zip(*parts, strict=True))
        samples = len(wanted) // len(self.rows[1])
        path = self.second.paths[0]
        offset = sum(a * factor.astype(np.float32) for a, (_, factor) in zip(added, path.summands, strict=True))
        maps = Maps(
            read.reshape(samples, -1, read.shape[1]),
            wanted[:, self.second.outputs].reshape(samples, len(self.rows[1]), -1),
            offset.reshape(samples, len(self.rows[1]), -1) if isinstance(offset, np.ndarray) else None,
        )
        inner = self.first.paths[0].activation
        assert inner is not None, "find_pairs has looked"
        fit = PairFit(*self.rows, inner, path.activation, self.effort.epochs, seed=seed)
        found = fit((self.first.now, self.second.now), maps)
        if found is None:
            return False
        self.first.write(graph, found[0])
        self.second.write(graph, found[1])
        return True


def find_pairs(
    labelled: LabelledGraph, removed: Array, cut: Graph, fits: Sequence[Fit], effort: Effort, samples: int
) -> dict[str, Pair]:
    """The pairs of the cut network, by the name of the second layer.

    The first is a layer with one use whose channels go through one activation to the second alone, and some of which
    were cut. No layer is the second of two pairs; it may be the first of the next. samples: of the data; pairs that
    would be fitted on too few are left out.
    """
    if not effort.epochs:
        return {}
    taps = find_taps(labelled, labelled.consumers)  # the first may read what no cut can change, as the input is
    firsts = _firsts(labelled, removed, cut, taps, {fit.consumer.name: fit for fit in fits})
    tensors = cut.gs.tensors()
    outputs = {tensor.name for tensor in cut.gs.outputs}
    found: dict[str, Pair] = {}
    for second in fits:
        read = second.consumer.data
        first = firsts.get(read)
        alone = read in tensors and len(tensors[read].outputs) == 1 and read not in outputs
        if first is None or not alone or not _trainable(second) or second.paths[0].tensor == first.paths[0].tensor:
            continue
        rows = (taps[first.consumer.name].table, taps[second.consumer.name].table)
        if len(rows[0]) == taps[second.consumer.name].inner and taps[second.consumer.name].batched:
            pair = Pair(first, second, rows, effort, taps[first.consumer.name], samples)
            if pair.on >= _LEAST:
                found[second.consumer.name] = pair
    return found


def _firsts(labelled: LabelledGraph, removed: Array, cut: Graph, taps: Taps, fits: Mapping[str, Fit]) -> dict[str, Fit]:
    """Layers that lost outputs and stand in front of an activation, by the tensor behind that."""
    tapped = {name for tap in taps for name in tap.consumers if tap.groups == 1 and tap.batched}
    tensors, shapes, paths = cut.gs.tensors(), labelled.facts.shapes, AffinePaths(cut)
    found: dict[str, Fit] = {}
    for consumer in affine_consumers(labelled):
        outputs = kept(consumer.outputs, removed)
        if len(consumer.uses) > 1 or consumer.name not in tapped & tensors.keys() or outputs.all() or not outputs.any():
            continue
        fit = fits.get(consumer.name)
        if fit is None:  # nothing that it reads has changed
            path = paths(consumer.name, (len(shapes[consumer.name]), consumer.layout.result, int(outputs.sum())))
            fit = Fit(consumer, (path,), kept(consumer.inputs, removed), outputs)
        path = fit.paths[0]
        behind = _behind(tensors[path.tensor], path.activation)
        if behind is not None and not path.summands and fit.inputs.any() and _trainable(fit):
            found[behind] = fit
    return found


def _behind(tensor: gs.Tensor, activation: ActivationFunction | None) -> str | None:
    """The tensor behind the activation of this one."""
    if activation is None:
        return None
    readers = [node for node in tensor.outputs if node.op == "Mul"] if len(tensor.outputs) == 2 else tensor.outputs
    if len(readers) != 1 or readers[0].op == "HardSigmoid":  # the slope of that one is not in its bounds
        return None
    return readers[0].outputs[0].name


def _trainable(fit: Fit) -> bool:
    """Whether its weight is one of floats, for one use, with a bias."""
    weight, consumer = fit.consumer.weight, fit.consumer
    values = constant_values(weight)
    plain = values is not None and values.itemsize >= _FLOAT and dequantising(weight) is None
    return plain and len(fit.paths) == 1 and consumer.may_have_bias and bool((np.abs(fit.paths[0].scale) > 0).all())
