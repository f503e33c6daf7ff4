"""Sequential refit: front to back, each weight that reads changed activations is fitted to the original outputs.

A consumer y = W u + b of the cut network, with inputs u' (what the network, refitted so far, really delivers), is
fitted where its output last is an affine function of y (`affine_path`): behind its BatchNormalization and the residual
sum that it goes into, in front of the activation, to what the original has there less what the other branches of the
cut network deliver; so errors of a shortcut are repaired too.
Source: He et al. 2017, sections 3.2 and 3.3 (asymmetric, multi-branch).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import numpy as np

from ..passes.algebra.layer.fit import ROUNDS, LayerFit, Rows
from ..passes.algebra.positions import positions_of
from ..passes.channels.labels import LabelledGraph
from ..passes.graph.model import Graph
from ..passes.rewrite.taps import Tap, Taps, find_taps
from .data.sources import Batch
from .effort import Effort
from .measure.calibrate import Calibration
from .measure.waves import Waves
from .progress import Count, silent
from .refit.fits import Fit, find_fits
from .refit.pairs import Pair, find_pairs

Array = np.ndarray
_BYTES = 96 << 20  # of one layer's rows
_BYTES_AHEAD = 64 << 20  # of the targets of the next layers


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
        Waves(labelled.graph, batches, device=settings.device, threads=settings.threads) as original,
        Waves(cut, batches, device=settings.device, threads=settings.threads) as now,
    ):
        del batches
        pairs = {} if effort is None else find_pairs(labelled, removed, cut, fits, effort, now.samples)
        layers = [_layer(f, (taps, labelled.facts.dtypes), now, (settings, effort), pairs) for f in fits]
        wanted = _wanted(layers, original)
        progress(0, len(fits))
        for number, layer in enumerate(layers):
            layer.refit(layers[number:], next(wanted), now, found)
            progress(number + 1, len(fits))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One weight on its way: its rows, what is fitted to them, and the layer in front that is fitted with it.

    samples: on how many of the first ones, whole waves
    """

    fit: Fit
    taps: Taps
    dtypes: dict[str, int]
    settings: Calibration
    effort: Effort | None
    samples: int
    pair: Pair | None = None

    def targets(self) -> list[Tap]:
        """Of the original's outputs that it is fitted to, alone and as a pair."""
        uses = zip(self.fit.consumer.uses, self.fit.paths, strict=True)
        taps = [self.taps.at_output(use, [path.tensor], self.dtypes).taps[0] for use, path in uses]
        alone = [replace(tap, most=self._positions()) for tap in taps]
        return alone if self.pair is None else [*alone, self.pair.whole(taps[0])]

    def refit(self, left: Sequence[_Layer], wanted: Sequence[tuple[Array, ...]], now: Waves, found: Refitted) -> None:
        """Fit it and write it into the graph of `now`.

        left: it and what comes after it; wanted: batch by batch the rows of `targets`.
        """
        fit, paths = self.fit, self.fit.paths
        rows, samples, maps = self._rows(left, wanted, now)
        paired = self.pair is not None or any(one.pair is not None and one.pair.first is fit for one in left)
        activation = paths[0].activation if len(paths) == 1 and not paired else None  # a pair sees to it
        rounds = ROUNDS if self.effort is None else self.effort.rounds
        refit, why = LayerFit(fit.start, activation, fit.consumer.may_have_bias, rounds, fit.stored)(rows, samples)
        if why is not None:
            found.left[fit.consumer.name] = why
            return
        found.layers += 1
        fit.write(now.graph, refit)
        if self.pair is not None:
            self.pair.fit(now.graph, maps, self.settings.seed)

    @property
    def stops(self) -> tuple[str, ...]:
        """First outputs of the nodes that may still change, or be read, for it."""
        return self.fit.consumer.uses if self.pair is None else (self.pair.first.consumer.name,)

    def _rows(
        self, left: Sequence[_Layer], wanted: Sequence[tuple[Array, ...]], now: Waves
    ) -> tuple[Rows, Array, list[list[Array]]]:
        """Inputs in the cut network, wanted outputs of the original, of what sample each row is, and maps of a pair."""
        inputs = self._inputs()
        ordinary = len(inputs)
        if self.pair is not None:
            inputs += self.pair.inputs(inputs[1:])
        settings = replace(self.settings, positions=self._positions())
        end = min(now.number(name) for one in left for name in one.stops)
        given = now.rows(end, Taps(tuple(inputs), self.taps.sizes), settings, self.samples)
        parts: list[Rows] = []
        samples: list[Array] = []
        maps: list[list[Array]] = []
        first = 0
        for Z, X, count in zip(wanted, given, now.counts(self.samples), strict=True):
            for rows in self._of_uses(Z, X[:ordinary]):
                parts.append(rows)
                samples.append(first + np.arange(len(rows)) * count // max(len(rows), 1))
            maps.append([*X[ordinary:], *Z[len(self.fit.paths) :]])
            first += count
        summed = any(path.summands for path in self.fit.paths)
        whole = Rows(
            np.concatenate([part.X for part in parts]),
            np.concatenate([part.Z for part in parts]),
            np.concatenate([np.broadcast_to(p.offset, (len(p.X), p.offset.shape[1])) for p in parts])
            if summed  # batches of one row and of several stand beside one another
            else parts[0].offset,
        )
        return whole, np.concatenate(samples), maps

    def _inputs(self) -> list[Tap]:
        inputs: list[Tap] = []
        for use, path in zip(self.fit.consumer.uses, self.fit.paths, strict=True):
            summands = self.taps.at_output(use, [name for name, _ in path.summands], self.dtypes)
            inputs += [*self.taps.only([use]), *summands]
        return inputs

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

    def _positions(self) -> int | None:
        """As many a sample as were asked for, while the rows are not too many for memory."""
        inputs = int(self.fit.inputs.sum()) * self.taps[self.fit.consumer.name].table.shape[1]
        wanted = self.settings.positions if self.effort is None else self.effort.positions_of(self.samples, inputs)
        rows = _BYTES // (4 * (inputs + 2 * len(self.fit.outputs)))
        return None if wanted is None else max(min(wanted, rows // max(self.samples * len(self.fit.paths), 1)), 1)


def _wanted(layers: Sequence[_Layer], original: Waves) -> Iterator[list[tuple[Array, ...]]]:
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
            mine = layer.targets()
            size += sum(_size(tap, layer) for tap in mine)
            if taps and size > _BYTES_AHEAD:
                break
            taps.append(mine)
        last = first + len(taps)
        # Behind the last of these targets, unless that of a later layer is made before it.
        end = min([max(chain(*numbers[first:last])) + 1, *(n for later in numbers[last:] for n in later)])
        yield from _targets(layers[first:last], taps, original, end)
        first = last


def _targets(
    layers: Sequence[_Layer], taps: Sequence[list[Tap]], original: Waves, end: int
) -> list[list[tuple[Array, ...]]]:
    """Layer by layer, batch by batch the rows of these taps; each wave runs for the layers that ask for it."""
    settings, sizes = layers[0].settings, layers[0].taps.sizes
    found: list[list[tuple[Array, ...]]] = [[] for _ in taps]
    for wave in range(max(original.waves(layer.samples) for layer in layers)):
        asking = [n for n, layer in enumerate(layers) if wave < original.waves(layer.samples)]
        tapped = Taps(tuple(chain(*(taps[n] for n in asking))), sizes)
        for rows in original.wave(wave).rows(end, tapped, settings):
            remaining = iter(rows)
            for n in asking:
                found[n].append(tuple(islice(remaining, len(taps[n]))))
    return found


def _layer(
    fit: Fit,
    known: tuple[Taps, dict[str, int]],
    now: Waves,
    how: tuple[Calibration, Effort | None],
    pairs: Mapping[str, Pair],
) -> _Layer:
    """The layer, with as many samples as its rows and its pair are of."""
    (taps, dtypes), (settings, effort) = known, how
    tap, pair, samples = taps[fit.consumer.name], pairs.get(fit.consumer.name), now.samples
    if effort is not None:
        samples = effort.fitted_on(samples, int(fit.inputs.sum()) * tap.table.shape[1], tap.grid)
        samples = samples if pair is None else max(samples, pair.on)
    return _Layer(fit, taps, dtypes, settings, effort, now.whole(samples), pair)


def _size(tap: Tap, layer: _Layer) -> int:
    """Bytes of the rows of its samples."""
    samples = layer.samples if tap.first is None else min(tap.first, layer.samples)
    return 4 * positions_of(tap.grid, tap.most) * len(layer.fit.outputs) * samples
