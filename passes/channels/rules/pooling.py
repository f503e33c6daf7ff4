"""Pooling, resizing and sampling: axis 1 is carried on, the axes behind it are space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import Rule, between_convolutions

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


RULES = (
    Rule(
        "MaxPool",
        _pool,
        samples={
            "windows": between_convolutions(
                "z = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)", size="2, 2", makes=6
            ),
        },
    ),
    Rule(
        "AveragePool",
        _pool,
        samples={
            "windows": between_convolutions(
                "z = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)", size="2, 2", makes=6
            ),
        },
    ),
    Rule(
        "LpPool",
        _pool,
        samples={
            "windows": between_convolutions(
                "z = LpPool <kernel_shape = [2, 2], strides = [2, 2]> (a)", size="2, 2", makes=6
            ),
        },
    ),
    Rule(
        "GlobalAveragePool",
        _pool,
        samples={
            "all of space": between_convolutions("z = GlobalAveragePool (a)", size="1, 1", makes=6),
        },
    ),
    Rule(
        "GlobalMaxPool",
        _pool,
        samples={
            "all of space": between_convolutions("z = GlobalMaxPool (a)", size="1, 1", makes=6),
        },
    ),
    Rule("GlobalLpPool", _pool),
    Rule(
        "GridSample",
        _grid_sample,
        samples={
            "a constant grid": between_convolutions(
                "z = GridSample (a, grid)", ", float[1, 2, 2, 2] grid", size="2, 2", makes=6
            ),
        },
    ),
    Rule("RoiAlign", _roi_align),
    Rule(
        "Resize",
        _resize,
        _rewrite_resize,
        samples={
            "scales": between_convolutions(
                'z = Resize <mode = "nearest"> (a, , scales)',
                ", float[4] scales = {1.0, 1.0, 2.0, 2.0}",
                size="8, 8",
                makes=6,
            ),
            "sizes": between_convolutions(
                'z = Resize <mode = "linear"> (a, , , sizes)', ", int64[4] sizes = {1, 6, 8, 8}", size="8, 8", makes=6
            ),
            "sizes of some axes": between_convolutions(
                "z = Resize <axes = [2, 1]> (a, , , sizes)", ", int64[2] sizes = {8, 6}", opset=18, makes=6
            )
            .replace("y) \n", "y)\n")
            .replace("[1, 2, 4, 4] y", "[1, 2, 8, 4] y"),
        },
    ),
    Rule(
        "Upsample",
        _resize,
        samples={
            "scales": between_convolutions(
                "z = Upsample (a, scales)", ", float[4] scales = {1.0, 1.0, 2.0, 2.0}", opset=9, size="8, 8", makes=6
            ),
        },
    ),
)
