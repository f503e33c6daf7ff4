"""Conv and ConvTranspose, 1-D to 3-D, plain, grouped and depthwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..labels import Layout
from . import Rule

if TYPE_CHECKING:
    from ..cut import Cut
    from ..labels import Array
    from ..sweep import Sweep


def convolve(s: Sweep, at: int = 1, bias: int | None = 2) -> None:
    """y[o] = sum_c W[o, c] * x[c]: data axis 1 meets weight axis 1, weight axis 0 becomes output axis 1.

    at, bias: which inputs hold the weight and the bias, if the operator has one.
    """
    data, weight = s.axes(0), s.axes(at)
    group = int(s.node.attrs.get("group", 1))
    _space(s, data, weight)
    # FusedConv has an activation, and adds a fourth input
    exact = not s.node.attrs.get("activation") and (bias != 2 or not s.has(3))
    layout = Layout(out=0, result=1, groups=group, bias=bias, window="convolution", exact=exact)
    if group == 1:
        s.contract((0, 1), (at, 1), layout)
        s.produces(weight[0])
    else:
        _grouped(s, data[1], at, layout)
    if bias is not None and s.has(bias):
        s.tie(s.axes(bias)[0], weight[0])
    _finish(s, data, weight[0], float(math.prod(s.out_shape()[2:])), weight)


def _conv_transpose(s: Sweep) -> None:
    """y[o] = sum_c W[c, o] * x[c]: data axis 1 meets weight axis 0, weight axis 1 becomes output axis 1 (a group's)."""
    data, weight = s.axes(0), s.axes(1)
    group = int(s.node.attrs.get("group", 1))
    _space(s, data, weight)
    layout = Layout(out=1, result=1, groups=group, bias=2, window="transposed")
    if group == 1:
        s.contract((0, 1), (1, 0), layout)
        s.produces(weight[1])
        outputs = weight[1]
    else:
        # The weight's axis 0 holds (group, channel of the group); the output's (group, filter of the group) exists
        # on no axis of the weight, so it gets labels of its own.
        parted = weight[0].reshape(group, -1)  # before there are labels for a `group` of a billion
        outputs = s.fresh(group * len(weight[1])) if len(weight[1]) * group > 1 else s.fixed(1)
        groups = s.fresh(group)
        s.split(outputs.reshape(group, -1), (groups, weight[1]))
        inputs = s.fresh(len(data[1]) // group) if len(data[1]) > group else s.fixed(1)
        s.split(parted, (groups, inputs))
        s.tie(data[1], weight[0])
        if len(data[1]) > group:
            s.consume((0, 1), (1, 0), weight[0], layout)
        s.produces(weight[1])
        s.note(groups)
    if s.has(2):
        s.tie(s.axes(2)[0], outputs)
    _finish(s, data, outputs, float(math.prod(s.shape(0)[2:])), weight)


def _space(s: Sweep, data: tuple[Array, ...], weight: tuple[Array, ...]) -> None:
    s.keep(data[0], "needs whole batches")
    for axis in data[2:]:
        s.keep(axis, "slides over this axis")
    for axis in weight[2:]:
        s.keep(axis, "slides over this axis")


def _grouped(s: Sweep, data: Array, at: int, layout: Layout) -> None:
    """Depthwise: channel and filters are one. Else whole groups, or the same position in every group (a Split)."""
    group = layout.groups
    filters, positions = s.axes(at)[:2]
    if len(data) == group:
        s.tie(np.repeat(data, len(filters) // group), filters)
        s.note(data)
        return
    parted = data.reshape(group, -1)  # first, for it refuses a `group` of a billion before there are labels for it
    groups = s.fresh(group)
    s.split(parted, (groups, positions))
    within = s.fresh(len(filters) // group) if len(filters) > group else s.fixed(1)
    s.split(filters.reshape(group, -1), (groups, within))
    s.consume((0, 1), (at, 1), positions, layout)
    s.produces(filters)
    s.note(groups)


def _finish(s: Sweep, data: tuple[Array, ...], outputs: Array, positions: float, weight: tuple[Array, ...]) -> None:
    s.set(0, (data[0], outputs, *(s.fixed(n) for n in s.out_shape()[2:])))
    kernel = math.prod(len(a) for a in weight[2:])
    s.macs(positions * kernel, (weight[0], weight[1]))


def rewrite_group(cut: Cut) -> None:
    """`group` counts the groups that are left."""
    if int(cut.node.attrs.get("group", 1)) > 1:
        cut.node.attrs["group"] = cut.size(cut.note[0])


RULES = (
    Rule(
        "Conv",
        convolve,
        rewrite_group,
        samples={
            "padding and strides": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 8, 8] x) => (float[1, 2, 4, 4] y)
            <float[6, 3, 3, 3] w1, float[6] b1, float[2, 6, 3, 3] w2> {
              a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
              r = Relu (a)
              y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2)
            }
            """,
            "depthwise": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 8] x) => (float[1, 2, 8] y)
            <float[8, 3, 1] w1, float[8] b1, float[8, 1, 3] wd, float[8] bd, float[2, 8, 1] w2> {
              a = Conv (x, w1, b1)
              d = Conv <group = 8, pads = [1, 1]> (a, wd, bd)
              y = Conv (d, w2)
            }
            """,
            "groups of two channels": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 4, 4, 4] x) => (float[1, 2, 4, 4, 4] y)
            <float[8, 3, 1, 1, 1] w1, float[12, 2, 1, 1, 1] wg, float[12] bg, float[2, 12, 1, 1, 1] w2> {
              a = Conv (x, w1)
              g1 = Conv <group = 4> (a, wg, bg)
              y = Conv (g1, w2)
            }
            """,
            "two groups": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
            <float[8, 3, 1, 1] w1, float[8, 4, 1, 1] wg, float[8] bg, float[2, 8, 1, 1] w2> {
              a = Conv (x, w1)
              g1 = Conv <group = 2> (a, wg, bg)
              y = Conv (g1, w2)
            }
            """,
            "two filters a channel": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
            <float[4, 3, 1, 1] w1, float[8, 1, 1, 1] wd, float[8] bd, float[2, 8, 1, 1] w2> {
              a = Conv (x, w1)
              d = Conv <group = 4> (a, wd, bd)
              y = Conv (d, w2)
            }
            """,
        },
    ),
    Rule(
        "ConvTranspose",
        _conv_transpose,
        rewrite_group,
        samples={
            "strides": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 4, 4] x) => (float[1, 2, 16, 16] y)
            <float[3, 6, 2, 2] w1, float[6] b1, float[6, 2, 2, 2] w2> {
              a = ConvTranspose <strides = [2, 2]> (x, w1, b1)
              y = ConvTranspose <strides = [2, 2]> (a, w2)
            }
            """,
            "groups": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 4, 4] x) => (float[1, 2, 8, 8] y)
            <float[8, 3, 1, 1] w1, float[8, 3, 2, 2] wt, float[12] bt, float[2, 12, 1, 1] w2> {
              a = Conv (x, w1)
              t = ConvTranspose <group = 4, strides = [2, 2]> (a, wt, bt)
              y = Conv (t, w2)
            }
            """,
            "depthwise": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1, 3, 4, 4] x) => (float[1, 2, 8, 8] y)
            <float[8, 3, 1, 1] w1, float[8, 1, 2, 2] wt, float[2, 8, 1, 1] w2> {
              a = Conv (x, w1)
              t = ConvTranspose <group = 8, strides = [2, 2]> (a, wt)
              y = Conv (t, w2)
            }
            """,
        },
    ),
)
