"""Which weights of a cut network are refitted, where along their affine paths, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...passes.algebra.least_squares import Refit
from ...passes.channels.affine import (
    AffineConsumer,
    affine_consumers,
    dequantising,
    integer_parts,
    weight_matrices,
    write_refit,
)
from ...passes.channels.constants import kept
from ...passes.channels.labels import Consumer, LabelledGraph
from ...passes.graph.bodies import captured_names
from ...passes.graph.model import Graph
from ...passes.rewrite.affine_path import AffinePath, AffinePaths, own_output
from ...passes.rewrite.taps import Taps

Array = np.ndarray
_NOTHING = 1e-12  # a channel that is scaled by less than this share of the largest scale


@dataclass(slots=True, eq=False)
class Fit:
    """One weight to refit.

    paths: of each of its uses in the cut network; inputs, outputs: the channels that are left, bool; written: what was
    fitted, at the end of the path, None so far.
    """

    consumer: AffineConsumer
    paths: tuple[AffinePath, ...]
    inputs: Array
    outputs: Array
    written: Refit | None = None

    @property
    def now(self) -> Refit:
        """What was written last, or the weight as it was cut."""
        return self.start if self.written is None else self.written

    @property
    def start(self) -> Refit:
        """The weight and bias as they were cut, at the end of the path."""
        scale, shift = self.paths[0].scale, self.paths[0].shift
        W, b = self._cut
        return Refit(W * scale[:, None, None], b * scale + shift)

    @property
    def stored(self) -> Callable[[Array], Array] | None:
        """What becomes of weights at the end of the path when they are written; None for floats, which stay."""
        grid = _grid(self.consumer)
        if grid is None:
            return None
        low, high, step = (part[self.outputs][:, self.inputs] for part in grid)

        def nearest(weight: Array) -> Array:
            with np.errstate(divide="ignore", invalid="ignore"):
                own = np.nan_to_num(np.rint(self._own(Refit(weight, np.zeros(len(weight)))).weight / step) * step)
            return np.clip(own, low, high) * self.paths[0].scale[:, None, None]

        return nearest

    def write(self, graph: Graph, refit: Refit) -> None:
        """Put what was fitted at the end of the path into the weight; channels that the path takes to zero stay."""
        before = None if self.written is None else self._own(self.written).bias
        self.written = refit
        write_refit(graph, self.consumer, self._own(refit), before)

    def _own(self, refit: Refit) -> Refit:
        """The weight and bias of the layer itself that have these at the end of the path."""
        scale, shift = self.paths[0].scale, self.paths[0].shift
        lives = np.abs(scale) > _NOTHING * np.abs(scale).max(initial=0)
        safe = np.where(lives, scale, 1)
        W, b = self._cut
        W = np.where(lives[:, None, None], refit.weight / safe[:, None, None], W)
        return Refit(W, np.where(lives, (refit.bias - shift) / safe, b))

    @property
    def _cut(self) -> tuple[Array, Array]:
        return self.consumer.W[self.outputs][:, self.inputs], self.consumer.b[self.outputs]


def _grid(consumer: AffineConsumer) -> tuple[Array, Array, Array] | None:
    """Of an integer weight the least and largest value that can be stored, and the step, (n, C, k) each."""
    node = dequantising(consumer.weight)
    parts = None if node is None else integer_parts(node)
    if parts is None:
        return None
    whole, scale, zero = parts
    limits = np.iinfo(whole.dtype)
    ends = ((limits.min - zero) * scale, (limits.max - zero) * scale, scale)
    grouped = [weight_matrices(np.broadcast_to(end, whole.shape), consumer.layout) for end in ends]
    low, high, step = (part[0].astype(np.float64) for part in grouped if part is not None)
    return low, high, step


def find_fits(labelled: LabelledGraph, removed: Array, cut: Graph, taps: Taps) -> tuple[list[Fit], dict[str, str]]:
    """Every tapped weight that reads a changed tensor, in an order in which what it reads is refitted before.

    Beside them those that cannot be, and why.
    """
    tapped = {name for tap in taps for name in tap.consumers if tap.groups == 1}
    changed = _changed(labelled, removed)
    there = tapped.intersection(tensor.name for node in cut.gs.nodes for tensor in node.outputs)
    consumers = [
        c for c in affine_consumers(labelled) if there.issuperset(c.uses) and any(use in changed for use in c.uses)
    ]
    before, needs = upstream(labelled, consumers)
    circular = [c for n, c in enumerate(consumers) if needs[n] >> n & 1]
    if circular:
        consumers = [c for c in consumers if c not in circular]
        before, needs = upstream(labelled, consumers)
    paths, shapes = AffinePaths(cut), labelled.facts.shapes
    fits: list[Fit] = []
    done = 0
    for at in _in_order(needs):
        consumer = consumers[at]
        outputs = kept(consumer.outputs, removed)

        def known(name: str, done: int = done, use: str = consumer.name) -> bool:
            return shapes.get(name) == shapes[use] and not before.get(name, -1) & ~done

        found = tuple(
            paths(use, (len(shapes[use]), consumer.layout.result, int(outputs.sum())), known) for use in consumer.uses
        )
        fits.append(Fit(consumer, _together(consumer.uses, found), kept(consumer.inputs, removed), outputs))
        done |= 1 << at
    left = {c.name: "it is used again on what it made itself" for c in circular}
    seen = {use for c in (*consumers, *circular) for use in c.uses}
    return fits, left | _unfit(labelled, removed, cut, seen)


def _unfit(labelled: LabelledGraph, removed: Array, cut: Graph, seen: set[str]) -> dict[str, str]:
    """The other weights that lost inputs, by the first output of what reads them, and why they cannot be refitted."""
    there = {tensor.name for node in cut.gs.nodes for tensor in node.outputs}
    found: dict[str, str] = {}
    for consumer in labelled.consumers:
        name = labelled.graph.gs.nodes[consumer.node].outputs[0].name
        if name in there and name not in seen and not kept(consumer.labels, removed).all():
            found[name] = _why_unfit(labelled, consumer)
    return found


def _why_unfit(labelled: LabelledGraph, consumer: Consumer) -> str:
    if consumer.weight in labelled.quantised:
        return "integer weights"
    if consumer.layout is None:
        return "weights of a form of their own"
    if consumer.layout.groups > 1:
        return "weights in groups"
    return "weights that other nodes make or read" if consumer.layout.exact else "more than W u + b"


def _together(uses: Sequence[str], paths: tuple[AffinePath, ...]) -> tuple[AffinePath, ...]:
    """Paths along which one weight can be fitted for all of its uses: all alike, else none goes anywhere."""
    first = paths[0]
    if all(np.array_equal(p.scale, first.scale) and np.array_equal(p.shift, first.shift) for p in paths[1:]):
        return paths
    return tuple(own_output(use, len(first.scale)) for use in uses)


def _changed(labelled: LabelledGraph, removed: Array) -> set[str]:
    """The tensors that a cut changes, those that lose channels among them."""
    changed: set[str] = set()
    cut = {c.node for c in labelled.consumers if not kept(c.labels, removed).all()}
    for number, node in enumerate(labelled.graph.gs.nodes):
        read = [t.name for t in node.inputs] + sorted(captured_names(node))
        if number in cut or any(name in changed for name in read):
            changed.update(t.name for t in node.outputs)
    return changed


def upstream(labelled: LabelledGraph, consumers: Sequence[AffineConsumer]) -> tuple[dict[str, int], list[int]]:
    """For every tensor the weights that have a part in it, as a set of bits; and for every weight those it reads of."""
    of = {use: number for number, consumer in enumerate(consumers) for use in consumer.uses}
    before: dict[str, int] = dict.fromkeys((t.name for t in labelled.graph.gs.inputs), 0)
    needs = [0] * len(consumers)
    for node in labelled.graph.gs.nodes:
        found = 0
        for name in [*(t.name for t in node.inputs), *sorted(captured_names(node))]:
            found |= before.get(name, 0)
        own = of.get(node.outputs[0].name) if node.outputs else None
        if own is not None:
            needs[own] |= found
            found |= 1 << own
        before.update((tensor.name, found) for tensor in node.outputs)
    return before, needs


def _in_order(needs: Sequence[int]) -> list[int]:
    """The weights so that those that have a part in the inputs of another come first; else as they are."""
    order: list[int] = []
    done = 0
    waiting = list(range(len(needs)))
    while waiting:
        at = next((i for i in waiting if not needs[i] & ~done), waiting[0])  # where two need one another the first
        waiting.remove(at)
        order.append(at)
        done |= 1 << at
    return order
