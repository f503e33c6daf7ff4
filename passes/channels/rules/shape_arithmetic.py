"""Operators that make shapes, ranges and tables: no channels of their own, or fresh ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.values import DYNAMIC
from . import Rule

if TYPE_CHECKING:
    from ..cut import Cut
    from ..sweep import Sweep


def _numbers(s: Sweep) -> None:
    """The result counts or draws: it holds no channels."""
    for position in range(len(s.node.inputs)):
        if s.has(position) and s.node.op not in ("Shape", "Size"):
            for axis in s.axes(position):
                s.keep(axis, "counts its entries")
    s.set(0, [s.fixed(n) for n in s.out_shape()])


def _constant_of_shape(s: Sweep) -> None:
    """All entries are equal, so those of an axis of constant size can be removed."""
    shape, kind = s.out_shape(), s.kind(0)
    free = s.value(0) is None
    s.set(0, [s.fixed(n) if n == 1 or free or k & DYNAMIC else s.fresh(n) for n, k in zip(shape, kind, strict=True)])


def _rewrite_constant_of_shape(cut: Cut) -> None:
    cut.set_sizes(0, dict(enumerate(cut.output_axes())))


_ZEROS = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[8, 3, 1, 1] w1, float[8] b1, float[2, 8, 1, 1] w2, float[5, 3, 1, 1] w3, int64[4] shape = {1, 3, 4, 4}> {
      a = Conv (x, w1, b1)
      c = Conv (x, w3)
      o = ConstantOfShape <value = float[1] {0.25}> (shape)
      p = Concat <axis = 1> (c, o)
      z = Add (a, p)
      y = Conv (z, w2)
    }
    """
_SHAPE = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 4, 4] x) => (float[N, 5] y)
    <float[8, 3, 1, 1] w1, float[8] b1, float[8, 5] w2, int64 zero = {0}, int64 one = {1}, int64[1] k = {0}> {
      a = Conv (x, w1, b1)
      p = GlobalAveragePool (a)
      s = Shape (p)
      n = Gather (s, zero)
      c = Gather (s, one)
      n1 = Unsqueeze (n, k)
      c1 = Unsqueeze (c, k)
      t = Concat <axis = 0> (n1, c1)
      f = Reshape (p, t)
      cf = Cast <to = 1> (c)
      root = Sqrt (cf)
      z = Div (f, root)
      y = MatMul (z, w2)
    }
    """
RULES = (
    Rule(
        "ConstantOfShape",
        _constant_of_shape,
        _rewrite_constant_of_shape,
        samples={
            "channels of one value": _ZEROS,
        },
    ),
    Rule(
        "Shape",
        _numbers,
        samples={
            "sizes that are read as numbers": _SHAPE,
        },
    ),
    *(Rule(op, _numbers) for op in ("Size", "Range", "NonZero", "OneHot", "EyeLike", "RandomNormal", "RandomUniform")),
)
