"""Normalisations and other per-channel statistics: a vector an axis, or a mix of the whole axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import Rule, between_convolutions
from .elementwise import broadcast

if TYPE_CHECKING:
    from ..cut import Cut
    from ..sweep import Sweep


def _per_channel(s: Sweep) -> None:
    """Every parameter is a vector along axis 1."""
    data = s.axes(0)
    channel = min(1, len(data) - 1)
    for position in range(1, len(s.node.inputs)):
        if s.has(position):
            s.tie(data[channel], s.axes(position)[0])
    trains = bool(s.node.attrs.get("training_mode")) or len(s.node.outputs) > 1
    if s.node.op == "InstanceNormalization" or trains:
        for axis in (*data[:channel], *data[2:]):
            s.keep(axis, "takes statistics over this axis")
    s.set(0, data)
    for position in range(1, len(s.node.outputs)):  # running statistics of training mode
        s.set(position, (data[channel],) if s.node.op == "BatchNormalization" else data)


def _over_last_axes(s: Sweep) -> None:
    """Statistics over all axes from `axis` on couple their channels."""
    data = s.axes(0)
    axis = int(s.node.attrs.get("axis", -1)) % len(data)
    for labels in data[axis:]:
        s.couple(labels, "couples the channels by their mean and variance")
    for position in range(1, len(s.node.inputs)):
        if s.has(position):
            broadcast(s, [data, s.axes(position)])
    s.set(0, data)
    for position in range(1, len(s.node.outputs)):
        s.set(position, (*data[:axis], *(s.fixed(1) for _ in data[axis:])))


def _over_groups(s: Sweep) -> None:
    """Whole groups can go; where inexact removal is allowed, the same positions of each instead.

    Scale and bias are one a group before opset 21, one a channel since.
    """
    data, count = s.axes(0), int(s.node.attrs["num_groups"])
    size = len(data[1]) // count
    groups, within = s.fresh(count) if count > 1 else s.fixed(1), s.fresh(size) if size > 1 else s.fixed(1)
    for axis in data[2:]:
        s.keep(axis, "takes statistics over this axis")
    s.couple(within, "couples the channels of a group by their mean and variance")
    s.split(data[1].reshape(count, size), (groups, within))
    for position in (1, 2):
        labels = s.axes(position)[0]
        s.tie(labels, data[1] if len(labels) == len(data[1]) else groups)
    s.set(0, data)
    s.note(groups)


def _rewrite_groups(cut: Cut) -> None:
    """`num_groups` counts the groups that are left."""
    cut.node.attrs["num_groups"] = cut.size(cut.note[0])


def _mixes_axis_1(s: Sweep) -> None:
    """Sums squares over neighbouring channels, which stay."""
    s.keep(s.axes(0)[1], "mixes neighbouring channels")
    s.set(0, s.axes(0))


def _mixes_axis(s: Sweep) -> None:
    """Every entry of the axis counts for every other: it stays, the other axes go on."""
    data = s.axes(0)
    flat = s.node.op in ("Softmax", "LogSoftmax", "Hardmax") and s.graph.opset < 13
    if s.node.op == "CumSum":
        along = s.value(1)
        mixed = data if along is None else (data[int(np.ravel(along)[0])],)
    else:
        along = int(s.node.attrs.get("axis", 1 if flat else -1)) % len(data)
        mixed = data[along:] if flat else (data[along],)
    for labels in mixed:
        s.keep(labels, "mixes the entries of its axis")
    s.set(0, data)


def _mixes_axes(s: Sweep) -> None:
    """Takes statistics over its axes, which stay; the others go on."""
    data = s.axes(0)
    for axis in s.node.attrs.get("axes", [0, 2, 3]):
        s.keep(data[axis], "takes statistics over this axis")
    s.set(0, data)


_GROUP_NORM = """
t = Reshape (a, shape)
n = InstanceNormalization (t, one, zero)
u = Reshape (n, back)
m = Mul (u, scale)
z = Add (m, shift)
"""
# Filters normalised by their own statistics: their input channels stay.
_STANDARDISED_WEIGHT = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[6, 3, 1, 1] w1, float[1, 8, 6] w2, float[8] one, float[8] zero, int64[4] s = {8, 6, 1, 1},
     float[2, 8, 1, 1] w3> {
      a = Conv (x, w1)
      n = InstanceNormalization (w2, one, zero)
      w = Reshape (n, s)
      b = Conv (a, w)
      y = Conv (b, w3)
    }
    """
RULES = (
    Rule(
        "BatchNormalization",
        _per_channel,
        samples={
            "of an activation": between_convolutions(
                "z = BatchNormalization (a, scale, shift, mean, var)",
                ", float[6] scale, float[6] shift, float[6] mean, float[6] var = {0.5, 0.6, 0.7, 0.8, 0.9, 1.0}",
                makes=6,
            ),
            "a weight that is normalised": _STANDARDISED_WEIGHT,
        },
    ),
    Rule(
        "InstanceNormalization",
        _per_channel,
        samples={
            "a channel at a time": between_convolutions(
                "z = InstanceNormalization (a, scale, shift)", ", float[6] scale, float[6] shift", makes=6
            ),
            "a group at a time": between_convolutions(
                _GROUP_NORM,
                ", int64[3] shape = {0, 4, -1}, int64[4] back = {1, 8, 4, 4}, float[4] one, float[4] zero, "
                "float[8, 1, 1] scale, float[8, 1, 1] shift",
            ),
        },
    ),
    Rule(
        "LayerNormalization",
        _over_last_axes,
        samples={
            "over space": between_convolutions("z = LayerNormalization (a, s, t)", ", float[4] s, float[4] t", makes=6),
        },
    ),
    Rule("SimplifiedLayerNormalization", _over_last_axes),
    Rule("RMSNormalization", _over_last_axes),
    Rule(
        "GroupNormalization",
        _over_groups,
        _rewrite_groups,
        samples={
            "four groups": between_convolutions(
                "z = GroupNormalization <num_groups = 4> (a, s, t)", ", float[8] s, float[8] t", opset=21
            ),
        },
    ),
    Rule("LRN", _mixes_axis_1),
    Rule(
        "Softmax",
        _mixes_axis,
        samples={
            "last axis": between_convolutions("z = Softmax <axis = -1> (a)", makes=6),
            "flattened from an axis on": between_convolutions("z = Softmax <axis = 2> (a)", opset=11, makes=6),
        },
    ),
    Rule("LogSoftmax", _mixes_axis),
    Rule("Hardmax", _mixes_axis),
    Rule("LpNormalization", _mixes_axis),
    Rule(
        "CumSum",
        _mixes_axis,
        samples={
            "along space": between_convolutions("z = CumSum (a, k)", ", int64 k = {2}", makes=6),
        },
    ),
    Rule(
        "MeanVarianceNormalization",
        _mixes_axes,
        samples={
            "over space": between_convolutions("z = MeanVarianceNormalization <axes = [2, 3]> (a)", makes=6),
        },
    ),
)
