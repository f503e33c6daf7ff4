"""Numbers inside the graph: what small integer tensors (shapes, indices, bounds) hold, computed without running it.

`fold` computes one node in numpy, `fold_kinds` what its elements depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .bodies import bodies

Array = np.ndarray
FLOATS = frozenset([TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16])
LIMIT = 1 << 16  # elements; shape arithmetic is far smaller, index tables of windowed attention reach tens of thousands


def float_types(graph: onnx.GraphProto) -> frozenset[int]:
    """The types of floats, as in onnx.TensorProto, that tensors have as far as the graph says, its bodies included."""
    found = {tensor.data_type for tensor in graph.initializer}
    found |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:
        found |= {a.t.data_type for a in node.attribute if a.HasField("t")}
        found |= {a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"}
        found = found.union(*map(float_types, bodies(node)))
    return FLOATS & found


def _axis(attrs: Mapping[str, Any], default: int = 0) -> int:
    return int(attrs.get("axis", default))


def _axes(attrs: Mapping[str, Any], args: Sequence[Array | None], position: int) -> list[int] | None:
    """The axes of Squeeze, Unsqueeze and the reductions: an attribute once, an input since opset 13."""
    if "axes" in attrs:
        return [int(a) for a in attrs["axes"]]
    axes = args[position] if len(args) > position else None
    return None if axes is None else [int(a) for a in np.ravel(axes)]


def _unsqueeze(attrs: Mapping[str, Any], x: Array, *rest: Array) -> Array:
    axes = _axes(attrs, [x, *rest], 1) or []
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = np.expand_dims(x, axis)
    return x


def _squeeze(attrs: Mapping[str, Any], x: Array, *rest: Array) -> Array:
    axes = _axes(attrs, [x, *rest], 1)
    return np.squeeze(x, tuple(axes) if axes else None)


def slice_index(attrs: Mapping[str, Any], rank: int, args: Sequence[Array | None]) -> tuple[slice, ...] | None:
    """The numpy index of a Slice node with known bounds: attributes before opset 10, inputs 1-4 since."""
    if "starts" in attrs:
        starts, ends = list(attrs["starts"]), list(attrs["ends"])
        axes, steps = list(attrs.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        numbers = [None if a is None else [int(v) for v in np.ravel(a)] for a in [*args, None, None, None, None][:4]]
        if numbers[0] is None or numbers[1] is None:
            return None
        starts, ends = numbers[0], numbers[1]
        axes = numbers[2] if numbers[2] is not None else list(range(len(starts)))
        steps = numbers[3] if numbers[3] is not None else [1] * len(starts)
    index = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # ONNX clamps far bounds; with a negative step an end at or below -size - 1 means "through index 0"
        index[axis] = slice(start, None if step < 0 and end < -(2**31) + 1 else end, step)
    return tuple(index)


def _slice(attrs: Mapping[str, Any], x: Array, *rest: Array) -> Array:
    index = slice_index(attrs, x.ndim, rest)
    assert index is not None
    return x[index]


def _split(attrs: Mapping[str, Any], x: Array, *rest: Array) -> tuple[Array, ...]:
    sizes = attrs.get("split") or (rest[0].tolist() if rest else None)
    axis = _axis(attrs)
    if sizes is None:
        count = int(attrs["num_outputs"])
        size = -(-x.shape[axis] // count)
        bounds = [min(size * i, x.shape[axis]) for i in range(1, count)]
    else:
        bounds = np.cumsum(sizes)[:-1].tolist()
    return tuple(np.split(x, bounds, axis))


def _reshape(attrs: Mapping[str, Any], x: Array, shape: Array) -> Array:
    target = [x.shape[i] if v == 0 and not attrs.get("allowzero") else int(v) for i, v in enumerate(shape)]
    return x.reshape(target)


# Operators that move elements: what they do to values they do to kinds.
MOVES: dict[str, Callable[..., Any]] = {
    "Identity": lambda attrs, x: x,
    "Gather": lambda attrs, x, i: np.take(x, i.astype(np.int64), axis=_axis(attrs)),
    "Concat": lambda attrs, *xs: np.concatenate(xs, axis=_axis(attrs)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Split": _split,
    "Reshape": _reshape,
    "Transpose": lambda attrs, x: np.transpose(x, attrs.get("perm")),
    "Expand": lambda attrs, x, shape: x * np.ones(shape, x.dtype) if x.dtype != bool else x | np.zeros(shape, bool),
    "Flatten": lambda attrs, x: x.reshape(int(np.prod(x.shape[: _axis(attrs, 1)])), -1),
    "Tile": lambda attrs, x, repeats: np.tile(x, repeats),
}


def _divide(_attrs: Mapping[str, Any], a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        quotient = np.floor_divide(np.abs(a), np.abs(b)) * np.sign(a) * np.sign(b)  # ONNX truncates toward zero
        return quotient.astype(a.dtype)
    return a / b


def _mod(attrs: Mapping[str, Any], a: Array, b: Array) -> Array:
    return np.fmod(a, b) if attrs.get("fmod") else np.mod(a, b)


# Elementwise operators, numpy broadcasting.
ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Cast": lambda attrs, x: x.astype(helper.tensor_dtype_to_np_dtype(int(attrs["to"]))),
    "Add": lambda attrs, a, b: a + b,
    "Sub": lambda attrs, a, b: a - b,
    "Mul": lambda attrs, a, b: a * b,
    "Div": _divide,
    "Mod": _mod,
    "Pow": lambda attrs, a, b: np.power(a, b).astype(a.dtype),
    "Clip": lambda attrs, x, low=None, high=None: np.clip(
        x, attrs.get("min") if low is None else low, attrs.get("max") if high is None else high
    ).astype(x.dtype),
    "Neg": lambda attrs, x: -x,
    "Abs": lambda attrs, x: np.abs(x),
    "Sqrt": lambda attrs, x: np.sqrt(x),
    "Reciprocal": lambda attrs, x: (1 / x).astype(x.dtype),
    "Floor": lambda attrs, x: np.floor(x),
    "Ceil": lambda attrs, x: np.ceil(x),
    "Round": lambda attrs, x: np.round(x),
    "Min": lambda attrs, *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
    "Max": lambda attrs, *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
    "Where": lambda attrs, c, a, b: np.where(c, a, b),
    "Equal": lambda attrs, a, b: a == b,
    "Less": lambda attrs, a, b: a < b,
    "LessOrEqual": lambda attrs, a, b: a <= b,
    "Greater": lambda attrs, a, b: a > b,
    "GreaterOrEqual": lambda attrs, a, b: a >= b,
    "Not": lambda attrs, x: ~x,
    "And": lambda attrs, a, b: a & b,
    "Or": lambda attrs, a, b: a | b,
}


def _reduce(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(attrs: Mapping[str, Any], x: Array, *rest: Array) -> Array:
        axes = _axes(attrs, [x, *rest], 1)
        if not axes and attrs.get("noop_with_empty_axes"):
            return x
        return function(x, axis=tuple(axes) if axes else None, keepdims=bool(attrs.get("keepdims", 1)))

    return reduce


def _constant_of_shape(attrs: Mapping[str, Any], shape: Array) -> Array:
    value = attrs.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.ravel(value.values)
    return np.full(tuple(int(v) for v in shape), fill[0], fill.dtype)


def _one_hot(attrs: Mapping[str, Any], indices: Array, depth: Array, values: Array) -> Array:
    count = int(depth.item())
    hot = indices[..., None] % count == np.arange(count)
    return np.moveaxis(np.where(hot, values[1], values[0]), -1, _axis(attrs, -1))


# Operators whose every element depends on every input element, as far as kinds go.
WHOLE: dict[str, Callable[..., Array]] = {
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "Range": lambda attrs, start, limit, delta: np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype),
    "ConstantOfShape": _constant_of_shape,
    "OneHot": _one_hot,
    "NonZero": lambda attrs, x: np.stack(np.nonzero(x)).astype(np.int64),
}

# Operators that move the elements of a constant without mixing them: a slice of the result is a slice of the constant.
MOVED = frozenset(
    [
        "Identity",
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Cast",
        "QuantizeLinear",
        "DequantizeLinear",
        "Slice",
        "Split",
        "Concat",
        "Gather",
    ]
)
FOLDABLE = frozenset(MOVES) | frozenset(ELEMENTWISE) | frozenset(WHOLE)


def fold(op: str, attrs: Mapping[str, Any], args: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """The outputs of one node on known inputs, or None where the operator or the values cannot be folded."""
    table = next((t for t in (MOVES, ELEMENTWISE, WHOLE) if op in t), None)
    if table is None:
        return None
    try:
        with np.errstate(all="ignore"):
            result = table[op](attrs, *args)
    except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, AssertionError, MemoryError):
        return None  # malformed here means malformed in the model: its runtime will say so
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(o) for o in outputs)


# Bits that say of an element what it depends on; 0: the same in every run, before and after every cut.
TAINTED, DYNAMIC = 1, 2  # the size of an axis that may be cut; the size of an input's free dimension


def fold_kinds(
    op: str, attrs: Mapping[str, Any], args: Sequence[Array | None], kinds: Sequence[Array], outputs: Sequence[Array]
) -> list[Array]:
    """What kind each element of the outputs is (uint8, the shapes of `outputs`), given the kinds of the inputs.

    Moves carry the kind along with the first operand's elements (Concat: all operands'); whatever chooses where they
    go counts for all of them.
    """
    if op in ELEMENTWISE:
        joined = np.zeros((), np.uint8)
        for kind in kinds:
            joined = joined | kind
        return [np.broadcast_to(joined, out.shape) for out in outputs]
    movers = kinds if op == "Concat" else kinds[:1]
    steering = np.uint8(0) if op == "Concat" else _all_bits(kinds[1:])
    if op in MOVES:
        moved = fold(op, attrs, [*movers, *args[len(movers) :]])
        if moved is not None:
            return [np.asarray(m, np.uint8) | steering for m in moved]
    return [np.full(out.shape, _all_bits(kinds), np.uint8) for out in outputs]


def _all_bits(kinds: Sequence[Array]) -> np.uint8:
    bits = np.uint8(0)
    for kind in kinds:
        if kind.size:
            bits |= np.bitwise_or.reduce(kind, axis=None)
    return bits
