"""Quantisation: scales and zero points are scalars, or vectors along the channels; integer contractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...graph.model import constant_values
from . import Rule
from .contraction import gemm, matmul
from .convolution import convolve, rewrite_group
from .elementwise import broadcast
from .joining import concat

if TYPE_CHECKING:
    from ..labels import Array
    from ..sweep import Sweep

MICROSOFT = "com.microsoft"


def _linear(s: Sweep) -> None:
    """One scale for all, one an entry of `axis`, or one a block of entries (that axis stays)."""
    data, scale = s.axes(0), s.axes(1)
    axis = int(s.node.attrs.get("axis", 1))
    if len(scale) > 1:
        for labels, steps in zip(data, scale, strict=True):
            if len(labels) == len(steps):
                s.tie(labels, steps)
            else:
                s.keep(labels, "scales it in blocks")
                s.keep(steps, "scales blocks")
    elif scale and len(scale[0]) > 1:
        s.tie(data[axis % len(data)], scale[0])
    if s.has(2):
        broadcast(s, [scale, s.axes(2)])
    if s.node.op == "DequantizeLinear" and s.is_moved_constant(0):
        s.quantised(0)
        aligned = _along(s.value(2), axis, len(data)) if s.has(2) else np.zeros(())
        if not _knows_zero(s, 0, aligned) and not _comes_quantised(s):
            for labels in data:
                s.keep(labels, "reads a constant whose zero is not known")
    s.set(0, data)


def _along(zeros: Array | None, axis: int, rank: int) -> Array | None:
    """Zero points so that they broadcast to a tensor of that rank: one for all, or one an entry of the axis."""
    if zeros is None or zeros.ndim != 1 or zeros.size == 1:
        return zeros if zeros is None or zeros.size == 1 or not zeros.any() else None
    shape = [1] * rank
    shape[axis % rank] = -1
    return zeros.reshape(shape)


def _knows_zero(s: Sweep, position: int, zeros: Array | None) -> bool:
    """Whether the silenced twin can write zeros into this constant; says them where they are not 0."""
    if zeros is None or not s.is_moved_constant(position):
        return False
    if constant_values(s.node.inputs[position]) is None:
        return not zeros.any()
    return s.zero(position, zeros)


def _comes_quantised(s: Sweep) -> bool:
    """Whether a float constant was quantised with the zero point at hand: its zero comes back as zero."""
    makers = s.node.inputs[0].inputs
    if not makers or makers[0].op != "QuantizeLinear" or not s.has(2):
        return False
    given = [t.name for t in makers[0].inputs[1:]]
    return given == [t.name for t in s.node.inputs[1:]]


def _dynamic(s: Sweep) -> None:
    """One scale from the range of all entries, which always spans 0: what goes counts as 0."""
    for axis in range(s.rank(0)):
        s.mask(0, axis)
    s.set(0, s.axes(0))
    s.set(1, ())
    s.set(2, ())


def _integer_weight(s: Sweep, position: int, zero_point: int, axis: int) -> bool:
    """Whether the weight is a constant whose zero is known; else nothing is known of the node."""
    zeros = s.value(zero_point) if s.has(zero_point) else np.zeros(())
    if _knows_zero(s, position, _along(zeros, axis, s.rank(position))):
        return True
    s.opaque(f"{s.node.op} with a computed weight or zero point has no rule")
    return False


def _steps(s: Sweep, position: int, operand: int, axis: int) -> None:
    """A scale or zero point of an operand: one for all, a vector along its axis, or what broadcasts to it."""
    if not s.has(position):
        return
    steps, labels = s.axes(position), s.axes(operand)
    if len(steps) != 1:
        broadcast(s, [steps, labels])
    elif len(steps[0]) > 1:
        s.tie(steps[0], labels[axis])


def _conv(s: Sweep) -> None:
    """A Conv of integers; scales and zero points go with the filters.

    ConvInteger (x, w, x_zero, w_zero), QLinearConv (x, .., .., w, w_scale, w_zero, .., .., bias).
    """
    at, zero, bias = (3, 5, 8) if s.node.op == "QLinearConv" else (1, 3, None)
    s.quantised(at, *([bias] if bias else []))
    if _integer_weight(s, at, zero, axis=0):
        for position in (4, 5) if bias else (3,):
            _steps(s, position, at, 0)
        convolve(s, at, bias)


def _matmul(s: Sweep) -> None:
    """A MatMul of integers; scales and zero points go with the columns.

    MatMulInteger (a, b, a_zero, b_zero), QLinearMatMul (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero).
    """
    linear = s.node.op == "QLinearMatMul"
    at, zero = (3, 5) if linear else (1, 3)
    s.quantised(at)
    if _integer_weight(s, at, zero, axis=-1):
        for position in (4, 5) if linear else (3,):
            _steps(s, position, at, -1)
        for position in (1, 2, 6, 7) if linear else (2,):
            _steps(s, position, 0, -2)
        matmul(s, at)


def _q_gemm(s: Sweep) -> None:
    """A Gemm of integers: (a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero)."""
    columns = 0 if s.node.attrs.get("transB", 0) else 1
    s.quantised(3, 6)
    if _integer_weight(s, 3, 5, axis=columns):
        for position in (4, 5):
            _steps(s, position, 3, columns)
        gemm(s, at=3, addend=6)


def _q_binary(s: Sweep) -> None:
    """Index by index: the operands are tied, with broadcasting (a, .., .., b, .., .., y_scale, y_zero)."""
    s.set(0, broadcast(s, [s.axes(0), s.axes(3)]))


def _q_unary(s: Sweep) -> None:
    """Index by index: the labels go on."""
    s.set(0, s.axes(0))


def _q_concat(s: Sweep) -> None:
    """Labels are joined like the tensors (y_scale, y_zero, then x, x_scale, x_zero of each)."""
    concat(s, range(2, len(s.node.inputs), 3))


def _q_pool(s: Sweep) -> None:
    """Axis 1, with channels_last the last one, is carried on; the others are space."""
    data, size = s.axes(0), s.out_shape()
    channels = len(data) - 1 if s.node.attrs.get("channels_last", 0) else 1
    for i, labels in enumerate(data):
        if i not in (0, channels):
            s.keep(labels, "slides over this axis")
    s.set(0, [labels if i in (0, channels) else s.fixed(size[i]) for i, labels in enumerate(data)])


def _sample(body: str, weights: str, shapes: tuple[str, str] = ("2, 3, 4, 4", "2, 2, 4, 4")) -> str:
    """A float tensor in and out; per tensor: scale 0.05, zero point 3; per channel: 6 and 2 of them, unlike."""
    return f"""
        <ir_version: 10, opset_import: ["": 21]>
        g (float[{shapes[0]}] x) => (float[{shapes[1]}] y)
        <float t = {{0.05}}, uint8 z = {{3}}, float u = {{0.02}}, int8 v = {{-7}}, int32[6] b1,
          float[6] t6 = {{0.01, 0.02, 0.03, 0.02, 0.01, 0.03}}, int8[6] z6 = {{0, 1, -2, 3, 4, -5}},
          float[2] t2 = {{0.02, 0.01}}, int8[2] z2 = {{9, -9}}, {weights}> {{
          {body}
        }}
        """


_ROWS = ("5, 4", "5, 2")
_WEIGHTS = "int8[6, 3, 1, 1] w1, int8[2, 6, 1, 1] w2"
_CHAINS = (
    """
    f1 = DequantizeLinear <axis = 0> (w1, t6, z6)
    c1 = DequantizeLinear <axis = 0> (b1, t6)
    a = Conv (x, f1, c1)
    q = QuantizeLinear (a, t, z)
    d = DequantizeLinear (q, t, z)
    f2 = DequantizeLinear <axis = 0> (w2, t2, z2)
    y = Conv (d, f2)
    """,
    """
    f1 = DequantizeLinear (w1, u, v)
    a = Conv (x, f1)
    q = QuantizeLinear <axis = 1> (a, t6, z6)
    d = DequantizeLinear <axis = 1> (q, t6, z6)
    q2 = QuantizeLinear <axis = 0> (w2, t2, z2)
    f2 = DequantizeLinear <axis = 0> (q2, t2, z2)
    y = Conv (d, f2)
    """,
    """
    f1 = DequantizeLinear <axis = 0, block_size = 2> (w1, s1)
    a = MatMul (x, f1)
    f2 = DequantizeLinear <axis = 1> (w2, t2, z2)
    y = MatMul (a, f2)
    """,
)
_DYNAMIC = """
    a = Conv (x, w1)
    q, s, o = DynamicQuantizeLinear (a)
    i = ConvInteger (q, w2, o, v)
    g = Cast <to = 1> (i)
    y = Mul (g, s)
    """
_DYNAMIC_MATMUL = """
    a = MatMul (x, w1)
    q, s, o = DynamicQuantizeLinear (a)
    i = MatMulInteger (q, w2, o, z2)
    g = Cast <to = 1> (i)
    y = Mul (g, s)
    """
_STATIC = """
    q = QuantizeLinear (x, t, z)
    a = QLinearConv (q, t, z, w1, t6, z6, u, z, b1)
    c = QLinearConv <group = 6, pads = [1, 1, 1, 1]> (a, u, z, wd, t6, z6, t, z, b1)
    e = QLinearConv (c, t, z, w2, t2, z2, t, z)
    y = DequantizeLinear (e, t, z)
    """
_STATIC_MATMUL = """
    q = QuantizeLinear (x, t, z)
    a = QLinearMatMul (q, t, z, w1, t6, z6, u, z)
    c = QLinearMatMul (a, u, z, w2, u, v, t, z)
    y = DequantizeLinear (c, t, z)
    """
RULES = (
    Rule(
        "QuantizeLinear",
        _linear,
        samples={
            "a scale a channel": _sample(_CHAINS[1], "int8[6, 3, 1, 1] w1, float[2, 6, 1, 1] w2"),
        },
    ),
    Rule(
        "DequantizeLinear",
        _linear,
        samples={
            "weights with a scale a filter": _sample(_CHAINS[0], _WEIGHTS),
            "weights with a scale a block": _sample(_CHAINS[2], "int8[4, 6] w1, float[2, 6] s1, int8[6, 2] w2", _ROWS),
        },
    ),
    Rule(
        "DynamicQuantizeLinear",
        _dynamic,
        samples={
            "a convolution": _sample(_DYNAMIC, "float[6, 3, 1, 1] w1, int8[2, 6, 1, 1] w2"),
        },
    ),
    Rule("ConvInteger", _conv, rewrite_group),
    Rule(
        "QLinearConv",
        _conv,
        rewrite_group,
        samples={
            "plain, depthwise, plain": _sample(_STATIC, f"{_WEIGHTS}, int8[6, 1, 3, 3] wd"),
        },
    ),
    Rule(
        "MatMulInteger",
        _matmul,
        samples={
            "after dynamic quantisation": _sample(_DYNAMIC_MATMUL, "float[4, 6] w1, int8[6, 2] w2", _ROWS),
        },
    ),
    Rule(
        "QLinearMatMul",
        _matmul,
        samples={
            "two in a row": _sample(_STATIC_MATMUL, "int8[4, 6] w1, int8[6, 2] w2", _ROWS),
        },
    ),
    Rule("QGemm", _q_gemm, domain=MICROSOFT),
    *(Rule(op, _q_binary, domain=MICROSOFT) for op in ("QLinearAdd", "QLinearMul")),
    *(Rule(op, _q_unary, domain=MICROSOFT) for op in ("QLinearSigmoid", "QLinearLeakyRelu")),
    Rule("QLinearConcat", _q_concat, domain=MICROSOFT),
    *(Rule(op, _q_pool, domain=MICROSOFT) for op in ("QLinearAveragePool", "QLinearGlobalAveragePool")),
)
