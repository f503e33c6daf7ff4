"""Pooling, resizing and sampling: axis 1 is carried on, the axes behind it are space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import Rule

if TYPE_CHECKING:
    from ..cut import Cut
    from ..sweep import Sweep


def _pool(s: Sweep) -> None:
    """Axis 1 is carried on, the axes behind it are space."""
    data = s.axes(0)
    for axis in data[2:]:
        s.keep(axis, "slides over this axis")
    for position in range(len(s.node.outputs)):
        s.set(position, (*data[:2], *(s.fixed(n) for n in s.out_shape()[2:])))
    if len(s.node.outputs) > 1 and s.node.outputs[1].name:
        s.keep(data[1], "returns indices that count channels")


def _grid_sample(s: Sweep) -> None:
    """Axis 1 is carried on; space is sampled at computed places."""
    data = s.axes(0)
    for axis in (*data[2:], *s.axes(1)):
        s.keep(axis, "samples along this axis")
    s.set(0, (*data[:2], *(s.fixed(n) for n in s.out_shape()[2:])))


def _roi_align(s: Sweep) -> None:
    """Axis 1 is carried on; batch and space are sampled at computed places."""
    data = s.axes(0)
    for axis in (data[0], *data[2:], *s.axes(1), *s.axes(2)):
        s.keep(axis, "samples along this axis")
    s.set(0, (s.fixed(s.out_shape()[0]), data[1], *(s.fixed(n) for n in s.out_shape()[2:])))


def _resize(s: Sweep) -> None:
    """An axis of unchanged size is carried on (NCHW and NHWC alike); one that is resized is space."""
    if s.has(3) and s.value(3) is None:
        s.opaque("Resize to computed sizes has no rule")
        return
    data, size = s.axes(0), s.out_shape()
    result = []
    for labels, after in zip(data, size, strict=True):
        if len(labels) == after:
            result.append(labels)
        else:
            s.keep(labels, "resizes this axis")
            result.append(s.fixed(after))
    s.set(0, result)


def _rewrite_resize(cut: Cut) -> None:
    """`sizes` names the size of every axis; `scales` are ratios and stay."""
    if len(cut.node.inputs) > 3 and cut.node.inputs[3].name:
        axes = cut.node.attrs.get("axes") or range(len(cut.output_axes()))
        cut.set_sizes(3, {i: cut.output_axes()[a] for i, a in enumerate(axes)})


def _sample(expression: str, weights: str = "", opset: int = 17, size: int = 4) -> str:
    return f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, {size}, {size}] y)
        <float[6, 3, 1, 1] w1, float[6] b1, float[2, 6, 1, 1] w2{weights}> {{
          a = Conv (x, w1, b1)
          {expression}
          y = Conv (z, w2)
        }}
        """


RULES = (
    Rule(
        "MaxPool",
        _pool,
        samples={
            "windows": _sample("z = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)", size=2),
        },
    ),
    Rule(
        "AveragePool",
        _pool,
        samples={
            "windows": _sample("z = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)", size=2),
        },
    ),
    Rule(
        "LpPool",
        _pool,
        samples={
            "windows": _sample("z = LpPool <kernel_shape = [2, 2], strides = [2, 2]> (a)", size=2),
        },
    ),
    Rule(
        "GlobalAveragePool",
        _pool,
        samples={
            "all of space": _sample("z = GlobalAveragePool (a)", size=1),
        },
    ),
    Rule(
        "GlobalMaxPool",
        _pool,
        samples={
            "all of space": _sample("z = GlobalMaxPool (a)", size=1),
        },
    ),
    Rule("GlobalLpPool", _pool),
    Rule(
        "GridSample",
        _grid_sample,
        samples={
            "a constant grid": _sample("z = GridSample (a, grid)", ", float[1, 2, 2, 2] grid", size=2),
        },
    ),
    Rule("RoiAlign", _roi_align),
    Rule(
        "Resize",
        _resize,
        _rewrite_resize,
        samples={
            "scales": _sample(
                'z = Resize <mode = "nearest"> (a, , scales)', ", float[4] scales = {1.0, 1.0, 2.0, 2.0}", size=8
            ),
            "sizes": _sample('z = Resize <mode = "linear"> (a, , , sizes)', ", int64[4] sizes = {1, 6, 8, 8}", size=8),
            "sizes of some axes": _sample(
                "z = Resize <axes = [2, 1]> (a, , , sizes)", ", int64[2] sizes = {8, 6}", opset=18, size=4
            )
            .replace("y) \n", "y)\n")
            .replace("[1, 2, 4, 4] y", "[1, 2, 8, 4] y"),
        },
    ),
    Rule(
        "Upsample",
        _resize,
        samples={
            "scales": _sample("z = Upsample (a, scales)", ", float[4] scales = {1.0, 1.0, 2.0, 2.0}", opset=9, size=8),
        },
    ),
)
