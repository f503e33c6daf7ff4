"""Operators that repeat entries: Expand and Tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...graph.values import DYNAMIC
from . import Rule, between_convolutions

if TYPE_CHECKING:
    from ..cut import Cut
    from ..labels import Array
    from ..sweep import Sweep


def _expand(s: Sweep) -> None:
    """A stretched axis holds copies of one entry: as many as the target says, so they can be removed."""
    if s.value(1) is None:
        s.opaque("Expand to a computed shape has no rule")
        return
    data, size, kind = s.axes(0), s.out_shape(), s.kind(1)
    result: list[Array] = []
    for back in range(len(size), 0, -1):
        labels = data[len(data) - back] if back <= len(data) else s.fixed(1)
        if len(labels) == size[-back]:
            result.append(labels)
            continue
        s.keep(labels, "stretches it over an axis")
        free = back <= len(kind) and kind[-back] & DYNAMIC
        result.append(s.fixed(size[-back]) if free else s.fresh(size[-back]))
    s.set(0, result)


def _rewrite_expand(cut: Cut) -> None:
    """A target of 1 says "as it is" and stays."""
    sizes, axes = cut.value(1), cut.output_axes()
    offset = len(axes) - (len(axes) if sizes is None else len(sizes))
    cut.set_sizes(1, {i - offset: a for i, a in enumerate(axes) if i >= offset}, unless=1)


def _tile(s: Sweep) -> None:
    """Copies one after the other: index j of the result is index j mod n of the data."""
    data, size = s.axes(0), s.out_shape()
    repeats, kind = s.value(1), s.kind(1)
    result: list[Array] = []
    for i, labels in enumerate(data):
        if len(labels) == size[i]:
            result.append(labels)
        elif repeats is None or kind[i] or len(labels) == 1:
            s.keep(labels, "repeats this axis a number of times that is computed")
            result.append(s.fixed(size[i]))
        else:
            result.append(np.tile(labels, size[i] // len(labels)))
    s.set(0, result)


RULES = (
    Rule(
        "Expand",
        _expand,
        _rewrite_expand,
        samples={
            "of pooled channels": between_convolutions(
                "p = GlobalMaxPool (a)\n q = Expand (p, shape)\n z = Mul (q, a)", ", int64[4] shape = {1, 8, 4, 4}"
            ),
            "of one number to the channels": between_convolutions(
                "e = Expand (one, shape)\n z = Add (e, a)", ", float[1] one = {0.5}, int64[4] shape = {1, 8, 1, 1}"
            ),
            "along space": between_convolutions(
                "p = GlobalMaxPool (a)\n z = Expand (p, shape)", ", int64[4] shape = {1, 1, 3, 3}", size="3, 3"
            ),
        },
    ),
    Rule(
        "Tile",
        _tile,
        samples={
            "channels and space": between_convolutions(
                "z = Tile (a, repeats)", ", int64[4] repeats = {1, 2, 1, 2}", size="4, 8", reads=16
            ),
        },
    ),
)
