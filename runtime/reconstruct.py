"""Sequential refit: front to back, each weight that reads changed activations is fitted to the original outputs.

A consumer y = W u + b of the cut network, with inputs u' (what the network, refitted so far, really delivers), is
fitted where its output last is an affine function of y (`affine_path`): behind its BatchNormalization and the residual
sum that it goes into, in front of the activation, to what the original has there less what the other branches of the
cut network deliver; so errors of a shortcut are repaired too.
Source: He et al. 2017, sections 3.2 and 3.3 (asymmetric, multi-branch).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import numpy as np

from ..passes.algebra.layer.fit import ROUNDS, LayerFit, Rows
from ..passes.algebra.least_squares import Refit
from ..passes.algebra.positions import positions_of
from ..passes.channels.affine import AffineConsumer, affine_consumers, write_refit
from ..passes.channels.constants import kept
from ..passes.channels.labels import LabelledGraph
from ..passes.graph.bodies import captured_names
from ..passes.graph.model import Graph
from ..passes.rewrite.affine_path import AffinePath, AffinePaths, own_output
from ..passes.rewrite.taps import Tap, Taps, find_taps
from .data.sources import Batch
from .effort import Effort
from .measure.calibrate import Calibration
from .measure.segments import Frontier
from .progress import Count, silent

Array = np.ndarray
_BYTES = 96 << 20  # of one layer's rows
_BYTES_AHEAD = 64 << 20  # of the targets of the next layers
_NOTHING = 1e-12  # a channel that is scaled by less than this share of the largest scale


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """One weight to refit.

    paths: of each of its uses in the cut network; inputs, outputs: the channels that are left, bool.
    """

    consumer: AffineConsumer
    paths: tuple[AffinePath, ...]
    inputs: Array
    outputs: Array


@dataclass(slots=True)
class Refitted:
    """What came of a refit.

    layers: how many weights were fitted; left: those that stayed as they were cut, by the consumer's name, and why.
    """

    layers: int = 0
    left: dict[str, str] = field(default_factory=dict)


def refit_sequentially(
    labelled: LabelledGraph,
    removed: Array,
    cut: Graph,
    data: Iterable[Batch],
    settings: Calibration | None = None,
    progress: Count = silent,
    effort: Effort | None = None,
) -> Refitted:
    """Refit the consumers of `cut` in place, in the order of the graph.

    labelled: the original; removed: one bool a label, what was cut; data: run through both networks side by side, in
    segments from one consumer to the next, so that each node runs about once. settings.positions: patches a sample of a
    layer; effort: where it is given, says how many instead. Fewer where the rows would be too many for memory.
    """
    settings = settings or Calibration()
    taps = find_taps(labelled)
    fits, left = find_fits(labelled, removed, cut, taps)
    batches = list(data) if fits else []
    found = Refitted(left=left)
    with (
        Frontier(labelled.graph, batches, device=settings.device, threads=settings.threads) as original,
        Frontier(cut, batches, device=settings.device, threads=settings.threads) as now,
    ):
        del batches
        layers = [_Layer(fit, taps, labelled.facts.dtypes, settings, effort) for fit in fits]
        wanted = _wanted(layers, original)
        progress(0, len(fits))
        for number, layer in enumerate(layers):
            layer.refit(fits[number:], next(wanted), now, found)
            progress(number + 1, len(fits))
    return found


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
    return fits, {c.name: "it is used again on what it made itself" for c in circular}


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


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One weight on its way: its rows, and what is fitted to them."""

    fit: Fit
    taps: Taps
    dtypes: dict[str, int]
    settings: Calibration
    effort: Effort | None

    def targets(self, samples: int) -> list[Tap]:
        """Of the original's outputs that it is fitted to."""
        uses = zip(self.fit.consumer.uses, self.fit.paths, strict=True)
        taps = [self.taps.at_output(use, [path.tensor], self.dtypes).taps[0] for use, path in uses]
        return [replace(tap, most=self._positions(samples)) for tap in taps]

    def refit(self, left: Sequence[Fit], wanted: Sequence[tuple[Array, ...]], now: Frontier, found: Refitted) -> None:
        """Fit it and write it into the graph of `now`.

        left: it and what comes after it; wanted: batch by batch the rows of `targets`.
        """
        fit, paths = self.fit, self.fit.paths
        W = fit.consumer.W[fit.outputs][:, fit.inputs]
        scale, shift = paths[0].scale, paths[0].shift
        b = fit.consumer.b[fit.outputs]
        start = Refit(W * scale[:, None, None], b * scale + shift)
        rows, samples = self._rows(left, wanted, now)
        activation = paths[0].activation if len(paths) == 1 else None
        rounds = ROUNDS if self.effort is None else self.effort.rounds
        refit, why = LayerFit(start, activation, fit.consumer.may_have_bias, rounds)(rows, samples)
        if why is not None:
            found.left[fit.consumer.name] = why
            return
        found.layers += 1
        lives = np.abs(scale) > _NOTHING * np.abs(scale).max(initial=0)
        safe = np.where(lives, scale, 1)
        W = np.where(lives[:, None, None], refit.weight / safe[:, None, None], W)
        write_refit(now.graph, fit.consumer, Refit(W, np.where(lives, (refit.bias - shift) / safe, b)))

    def _rows(self, left: Sequence[Fit], wanted: Sequence[tuple[Array, ...]], now: Frontier) -> tuple[Rows, Array]:
        """Inputs in the cut network, wanted outputs of the original, and of what sample each row is."""
        fit, taps = self.fit, self.taps
        settings = replace(self.settings, positions=self._positions(now.samples))
        inputs: list[Tap] = []
        for use, path in zip(fit.consumer.uses, fit.paths, strict=True):
            inputs += [*taps.only([use]), *taps.at_output(use, [name for name, _ in path.summands], self.dtypes)]
        given = now.rows(
            min(now.number(use) for one in left for use in one.consumer.uses), Taps(tuple(inputs), taps.sizes), settings
        )
        parts: list[Rows] = []
        samples: list[Array] = []
        first = 0
        for Z, X, count in zip(wanted, given, now.counts, strict=True):
            for rows in self._of_uses(Z, X):
                parts.append(rows)
                samples.append(first + np.arange(len(rows)) * count // max(len(rows), 1))
            first += count
        summed = any(path.summands for path in fit.paths)
        whole = Rows(
            np.concatenate([part.X for part in parts]),
            np.concatenate([part.Z for part in parts]),
            np.concatenate([np.broadcast_to(p.offset, (len(p.X), p.offset.shape[1])) for p in parts])
            if summed  # batches of one row and of several stand beside one another
            else parts[0].offset,
        )
        return whole, np.concatenate(samples)

    def _of_uses(self, Z: tuple[Array, ...], X: tuple[Array, ...]) -> list[Rows]:
        """The rows of one batch, use by use."""
        found, at = [], 0
        for number, path in enumerate(self.fit.paths):
            given, summands = X[at], X[at + 1 : at + 1 + len(path.summands)]
            at += 1 + len(path.summands)
            offset = np.zeros((1, 1), np.float32)
            for summand, (_, factor) in zip(summands, path.summands, strict=True):
                offset = offset + summand * factor.astype(np.float32)
            found.append(Rows(given, Z[number][:, self.fit.outputs], offset))
        return found

    def _positions(self, samples: int) -> int | None:
        """As many a sample as were asked for, while the rows are not too many for memory."""
        inputs = int(self.fit.inputs.sum()) * self.taps[self.fit.consumer.name].table.shape[1]
        wanted = self.settings.positions if self.effort is None else self.effort.positions_of(samples, inputs)
        rows = _BYTES // (4 * (inputs + 2 * len(self.fit.outputs)))
        return None if wanted is None else max(min(wanted, rows // max(samples * len(self.fit.paths), 1)), 1)


def _wanted(layers: Sequence[_Layer], original: Frontier) -> Iterator[list[tuple[Array, ...]]]:
    """Layer by layer, batch by batch the rows of its targets.

    They are taken of as many layers at once as may lie in memory: what runs in one piece need not be stored and read
    again in between.
    """
    numbers = [[original.number(path.tensor) for path in layer.fit.paths] for layer in layers]
    first = 0
    while first < len(layers):
        taps: list[list[Tap]] = []
        size = 0
        for layer in layers[first:]:
            mine = layer.targets(original.samples)
            size += sum(_size(tap, layer) for tap in mine) * original.samples
            if taps and size > _BYTES_AHEAD:
                break
            taps.append(mine)
        last = first + len(taps)
        # Behind the last of these targets, unless that of a later layer is made before it.
        end = min([max(chain(*numbers[first:last])) + 1, *(n for later in numbers[last:] for n in later)])
        settings, sizes = layers[first].settings, layers[first].taps.sizes
        found = [[] for _ in taps]
        for rows in original.rows(end, Taps(tuple(chain(*taps)), sizes), settings):
            remaining = iter(rows)
            for batches, mine in zip(found, taps, strict=True):
                batches.append(tuple(islice(remaining, len(mine))))
        yield from found
        first = last


def _size(tap: Tap, layer: _Layer) -> int:
    """Bytes of the rows of one sample."""
    return 4 * positions_of(tap.grid, tap.most) * len(layer.fit.outputs)
