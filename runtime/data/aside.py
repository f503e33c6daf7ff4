"""Which samples are put aside: those that are held out of a fit, and those that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from .batches import Data, part
from .sources import Batch

Array = np.ndarray
_SHARE = 8  # at most one sample in so many is held out of few, and of what can only be iterated
_FAR, _FEW = 1e3, 10  # times the median of the others; at most one sample in so many is left out


def parted(order: Array, samples: int | None, held_out: int, size: int, seed: int) -> tuple[Array, Array]:
    """The samples to be used, and others at random that are held out, in batches of `size`.

    order: indices, of which `samples` are wanted, None for all that are left.
    """
    count = len(order)
    spare = 0 if samples is None else count - samples
    aside = max(min(held_out, spare), min(held_out, count // _SHARE))
    aside -= aside % size
    if held_out and not aside and count >= 2 * size:
        aside = size
    at = np.sort(np.random.default_rng([seed, 1]).permutation(count)[:aside])
    return np.delete(order, at)[:samples], order[at]


def plausible(order: Array, largest: Callable[[Array], Array] | None) -> tuple[Array, int]:
    """The samples without those that are not finite or far beyond the others, and how many these are.

    largest: indices -> the largest magnitude of each of these samples; None where that is not known.
    """
    if largest is None or len(order) < 2:
        return order, 0
    found = largest(order)
    finite = np.isfinite(found)
    middle = float(np.median(found[finite])) if finite.any() else 0.0
    odd = ~finite | ((found > _FAR * middle) & (middle > 0))
    if odd.sum() > max(len(order) // _FEW, 1):
        return order, 0
    return order[~odd], int(odd.sum())


def without_every_eighth(whole: Data, most: int, size: int) -> Data:
    """The data without every eighth sample, or batch of `size`, up to `most`, which are its `held_out`.

    Where there are fewer than eight, none is.
    """
    if sum(batch.size for batch in whole.first(_SHARE * size)) < _SHARE * size:
        return whole

    def chosen(*, aside: bool) -> Iterator[Batch]:
        at = taken = 0
        for batch in whole:
            index = (at + np.arange(batch.size)) // size
            out = (index % _SHARE == _SHARE - 1) & (index // _SHARE * size < most)
            at += batch.size
            places = np.flatnonzero(out if aside else ~out)
            if len(places):
                taken += len(places)
                yield batch if len(places) == batch.size else part(batch, places)
            if aside and taken >= most:
                return

    rest = replace(whole, batches=lambda: chosen(aside=True))
    return replace(whole, batches=lambda: chosen(aside=False), held_out=rest)
