"""ScatterND, ScatterElements, GatherND and GatherElements: entries written or read at the places of an index table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import Rule
from .elementwise import same

if TYPE_CHECKING:
    from ..cut import Cut
    from ..sweep import Sweep


def _scatter_nd(s: Sweep) -> None:
    """Entries of a copy of the data are overwritten; the result carries the data's labels.

    Where a constant list of indices into the first axis says which, update i belongs to the channel of index i;
    other tables leave the axes that they index whole.
    """
    data, updates, indices = s.axes(0), s.axes(2), s.value(1)
    depth, leading = s.shape(1)[-1], s.rank(1) - 1
    rest = [same(s, pair) for pair in zip(data[depth:], updates[leading:], strict=True)]
    if indices is not None and depth == leading == 1 and not s.kind(1).any():
        s.tie(updates[0], data[0][indices.astype(np.int64)[:, 0]])
        s.set(0, (data[0], *rest))
        return
    for labels in (*data[:depth], *updates[:leading], *(s.axes(1) if indices is None else ())):
        s.keep(labels, "has a table of indices for this axis")
    s.set(0, (*data[:depth], *rest))


def _rewrite_scatter_nd(cut: Cut) -> None:
    """Of a list the indices of what is left, as they count after the cut."""
    labels, indices = cut.axes(0)[0], cut.value(1)
    if indices is None or indices.shape[1:] != (1,) or not cut.touched(labels):
        return
    left = cut.remaining(labels, indices[:, 0] % len(labels))
    cut.set_input(1, left.reshape(-1, 1).astype(indices.dtype))


def _scatter_elements(s: Sweep) -> None:
    """Every axis is indexed: all stay."""
    for position in (0, 1, 2):
        if position != 1 or s.value(1) is None:
            for labels in s.axes(position):
                s.keep(labels, "has a table of indices for this axis")
    s.set(0, s.axes(0))


def _gather_elements(s: Sweep) -> None:
    """Every axis is indexed: all stay, and what is taken are no channels."""
    for position in (0, 1):
        if position != 1 or s.value(1) is None:
            for labels in s.axes(position):
                s.keep(labels, "has a table of indices for this axis")
    s.set(0, [s.fixed(n) for n in s.out_shape()])


def _gather_nd(s: Sweep) -> None:
    """The axes that are indexed stay; those behind them go on."""
    data, batch = s.axes(0), int(s.node.attrs.get("batch_dims", 0))
    depth = batch + s.shape(1)[-1]
    for labels in (*data[:depth], *(s.axes(1) if s.value(1) is None else ())):
        s.keep(labels, "has a table of indices for this axis")
    taken = s.out_shape()[: s.rank(1) - 1]
    s.set(0, (*(s.fixed(n) for n in taken), *data[depth:]))


def _sample(expression: str, weights: str) -> str:
    return f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[4, 3] x) => (float[4, 2] y)
        <float[3, 8] w1, float[8] b1, float[8, 2] w2{weights}> {{
          a = MatMul (x, w1)
          {expression}
          y = MatMul (z, w2)
        }}
        """


RULES = (
    Rule(
        "ScatterND",
        _scatter_nd,
        _rewrite_scatter_nd,
        samples={
            "into a vector": _sample(
                "b = ScatterND (b1, i, u)\n z = Add (a, b)", ", int64[3, 1] i = {5, -1, 2}, float[3] u"
            ),
            "rows": _sample("z = ScatterND (a, i, u)", ", int64[2, 1] i = {3, 0}, float[2, 8] u"),
            "into a table": _sample(
                "m = ScatterND (t, i, u)\n z = Mul (a, m)", ", float[4, 1] t, int64[2, 2] i = {3, 0, 1, 0}, float[2] u"
            ),
        },
    ),
    Rule(
        "ScatterElements",
        _scatter_elements,
        samples={
            "into a table": _sample(
                "m = ScatterElements (t, i, u)\n z = Mul (a, m)",
                ", float[4, 1] t, int64[2, 1] i = {3, 0}, float[2, 1] u",
            ),
        },
    ),
    Rule(
        "GatherND",
        _gather_nd,
        samples={
            "rows": _sample("z = GatherND (a, i)", ", int64[4, 1] i = {3, 0, 1, 1}"),
        },
    ),
    Rule(
        "GatherElements",
        _gather_elements,
        samples={
            "from a table": _sample(
                "m = GatherElements (t, i)\n z = Mul (a, m)", ", float[4, 1] t, int64[4, 1] i = {3, 0, 2, 2}"
            ),
        },
    ),
)
