"""Operators that work index by index: unary ones carry labels on, n-ary ones tie them with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import Rule, between_convolutions

if TYPE_CHECKING:
    from ..labels import Array, Axes
    from ..sweep import Sweep

UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
]
NARY = [
    "Add",
    "And",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
    "PRelu",
]
# The first input carries labels, the others are scalars; further outputs look like the first.
FIRST = ["Clip", "CastLike"]
# A random number for each entry of the first input: other ones, once some entries are gone.
DRAWN = ["Bernoulli", "RandomNormalLike", "RandomUniformLike"]
_DRAWS = "draws random numbers for its channels, other ones once some are gone"


def broadcast(s: Sweep, operands: Sequence[Axes]) -> tuple[Array, ...]:
    """Tie operands of numpy broadcasting axis by axis and return the labels of the result.

    An axis of size 1 that is stretched over n must keep its one channel.
    """
    rank = max((len(o) for o in operands), default=0)
    result: list[Array] = []
    for back in range(rank, 0, -1):
        axes = [o[len(o) - back] for o in operands if len(o) >= back]
        size = max(len(a) for a in axes) if all(len(a) for a in axes) else 0
        for axis in axes:
            if len(axis) != size:
                s.keep(axis, "stretches it over an axis")
        result.append(same(s, [a for a in axes if len(a) == size]))
    return tuple(result)


def same(s: Sweep, axes: Sequence[Array]) -> Array:
    """Tie axes of one size and return the labels of all: those of positions where one of them is no channel axis."""
    for axis in axes[1:]:
        s.tie(axes[0], axis)
    return min(axes, key=lambda a: bool((a >= 0).any()))


def _unary(s: Sweep) -> None:
    """Index by index: the labels go on."""
    s.set(0, s.axes(0))


def _first(s: Sweep) -> None:
    """The first input's labels go on; the others are parameters."""
    for position in range(1, len(s.node.inputs)):
        if s.has(position):
            for axis in s.axes(position):
                s.keep(axis, "takes it as a parameter")
    for position in range(len(s.node.outputs)):
        s.set(position, s.axes(0))


def _drawn(s: Sweep) -> None:
    """A random number for each entry: none can go, or the others are drawn anew."""
    for axis in s.axes(0):
        s.keep(axis, _DRAWS)
    s.set(0, s.axes(0))


def _dropout(s: Sweep) -> None:
    """The first input's labels go on, the mask has them too; in training mode it draws random numbers."""
    ratio, training = s.value(1), s.value(2)
    is_idle = not s.has(2) or (training is not None and not training.any()) or (ratio is not None and not ratio.any())
    for axis in () if is_idle else s.axes(0):
        s.keep(axis, f"{_DRAWS} (it was exported in training mode)")
    _first(s)


def _nary(s: Sweep) -> None:
    """Index by index: the operands are tied, with broadcasting."""
    s.set(0, broadcast(s, [s.axes(i) for i in range(len(s.node.inputs))]))


_UNARY_SAMPLES = {
    "Relu": {"between layers": between_convolutions("z = Relu (a)", makes=6)},
    "Sigmoid": {"between layers": between_convolutions("z = Sigmoid (a)", makes=6)},
    "Identity": {"between layers": between_convolutions("z = Identity (a)", makes=6)},
    "Cast": {"to double and back": between_convolutions("d = Cast <to = 11> (a)\n z = Cast <to = 1> (d)", makes=6)},
    "Cos": {"between layers": between_convolutions("z = Cos (a)", makes=6)},
}
_NARY_SAMPLES = {
    "Add": {
        "two activations": between_convolutions("c = Conv (x, w3)\n z = Add (a, c)", ", float[6, 3, 1, 1] w3", makes=6),
        "a vector second": between_convolutions("z = Add (a, v)", ", float[6, 1, 1] v", makes=6),
        "a vector first": between_convolutions("z = Add (v, a)", ", float[1, 6, 1, 1] v", makes=6),
    },
    "Mul": {
        "squeeze and excite": between_convolutions(
            "p = GlobalAveragePool (a)\n c = Conv (p, w3)\n q = Sigmoid (c)\n z = Mul (a, q)",
            ", float[6, 6, 1, 1] w3",
            makes=6,
        ),
        "one map for all channels": between_convolutions(
            "c = Conv (x, w3)\n q = Sigmoid (c)\n z = Mul (a, q)", ", float[1, 3, 1, 1] w3", makes=6
        ),
    },
    "Sum": {
        "three operands": between_convolutions(
            "c = Conv (x, w3)\n z = Sum (a, c, v)", ", float[6, 3, 1, 1] w3, float[6, 1, 1] v", makes=6
        )
    },
    "Where": {
        "a threshold a channel": between_convolutions(
            "m = Greater (a, v)\n z = Where (m, a, v)", ", float[6, 1, 1] v", makes=6
        )
    },
    "PRelu": {"a slope a channel": between_convolutions("z = PRelu (a, v)", ", float[6, 1, 1] v", makes=6)},
}
_FIRST_SAMPLES = {
    "Clip": {
        "two bounds": between_convolutions("z = Clip (a, lo, hi)", ", float lo = {-0.1}, float hi = {0.2}", makes=6)
    },
}
_DROPOUT_SAMPLES = {
    "of an export for inference": between_convolutions("z = Dropout (a)", makes=6),
    "training mode that is off": between_convolutions(
        "z = Dropout (a, r, t)", ", float r = {0.5}, bool t = {0}", makes=6
    ),
}

RULES = (
    *(Rule(op, _unary, samples=_UNARY_SAMPLES.get(op, {})) for op in UNARY),
    *(Rule(op, _nary, samples=_NARY_SAMPLES.get(op, {})) for op in NARY),
    *(Rule(op, _first, samples=_FIRST_SAMPLES.get(op, {})) for op in FIRST),
    *(Rule(op, _drawn) for op in DRAWN),
    Rule("Dropout", _dropout, samples=_DROPOUT_SAMPLES),
)
