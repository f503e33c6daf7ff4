"""Reductions: over positions they carry labels on, over channels only the plain sum leaves a channel removable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import Rule, between_convolutions

if TYPE_CHECKING:
    from ..sweep import Sweep

MIXING = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
]


def _reduce(s: Sweep) -> None:
    """Over positions labels go on; over channels a sum loses a summand, a mean is inexact, all else stays."""
    data = s.axes(0)
    axes = _reduced_axes(s, len(data))
    if axes is None:
        s.opaque(f"{s.node.op} over axes that are computed")
        return
    for axis in axes:
        if s.node.op == "ReduceSum":
            s.mask(0, axis)  # a removed channel is a removed summand
        elif s.node.op == "ReduceMean":
            s.couple(data[axis], "takes the mean over this axis")
        else:
            s.keep(data[axis], "mixes the entries of its axis")
    keep = bool(s.node.attrs.get("keepdims", 1))
    s.set(0, [s.fixed(1) if i in axes else a for i, a in enumerate(data) if keep or i not in axes])


def _reduced_axes(s: Sweep, rank: int) -> set[int] | None:
    if "axes" in s.node.attrs:
        axes = s.node.attrs["axes"]
    elif s.has(1):
        known = s.value(1)
        if known is None:
            return None
        axes = np.ravel(known).tolist()
    else:
        axes = []
    if not axes:
        return set() if s.node.attrs.get("noop_with_empty_axes") else set(range(rank))
    return {int(a) % rank for a in axes}


def _arg(s: Sweep) -> None:
    """The result counts entries of the axis, which stays; the others go on."""
    data = s.axes(0)
    axis = int(s.node.attrs.get("axis", 0)) % len(data)
    s.keep(data[axis], "counts the entries of its axis")
    keep = bool(s.node.attrs.get("keepdims", 1))
    s.set(0, [s.fixed(1) if i == axis else a for i, a in enumerate(data) if keep or i != axis])


def _top_k(s: Sweep) -> None:
    """The axis that is sorted stays, the others go on."""
    data = s.axes(0)
    axis = int(s.node.attrs.get("axis", -1)) % len(data)
    s.keep(data[axis], "sorts the entries of its axis")
    for position in (0, 1):
        s.set(position, [s.fixed(s.out_shape()[axis]) if i == axis else a for i, a in enumerate(data)])


_SUM_OF_CHANNELS = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[1, 3, 4, 4] x) => (float[1, 1, 4, 4] y)
    <float[6, 3, 1, 1] w1, float[6] b1, int64[1] k = {1}> {
      a = Conv (x, w1, b1)
      r = Relu (a)
      y = ReduceSum <keepdims = 1> (r, k)
    }
    """

RULES = (
    Rule(
        "ReduceSum",
        _reduce,
        samples={
            "over space": between_convolutions(
                "z = ReduceSum (a, k)", ", int64[2] k = {2, 3}", size="1, 1", opset=13, makes=6
            ),
            "over channels": _SUM_OF_CHANNELS,
        },
    ),
    *(
        Rule(
            op,
            _reduce,
            samples={
                "over space": between_convolutions(
                    f"z = {op} <axes = [2, 3]> (a)", ", int64[2] k = {2, 3}", size="1, 1", opset=13, makes=6
                )
            }
            if op in ("ReduceMean", "ReduceMax", "ReduceL2")
            else {},
        )
        for op in MIXING
    ),
    Rule("ArgMax", _arg),
    Rule("ArgMin", _arg),
    Rule("TopK", _top_k),
)
