"""Shape arithmetic in Python: what follows from sizes alone never becomes a tensor, and waits for no device.

A value is a number or a (nested) list of numbers. The common cases are written out, so that torch.compile follows
them; the others are numpy's.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ...passes.errors import ReadError
from ...passes.graph.values import FOLDABLE, fold
from .operators import FIX, Function, Site

# What makes many elements of few: worth a tensor, unless somebody needs the numbers.
GROWING = frozenset(["ConstantOfShape", "Expand", "Range", "Tile", "OneHot", "NonZero"])
SIZES = frozenset(["Shape", "Size"])
HOSTED = FOLDABLE | SIZES


def host_function(site: Site) -> Function:
    """The function of a node in Python values; that of Shape and Size takes the tensor."""
    if site.node.op_type == "Shape":
        start, end = site.attrs.get("start", 0), site.attrs.get("end")
        return lambda x: tuple(x.shape)[start:end]
    if site.node.op_type == "Size":
        return lambda x: x.numel()
    general = _general(site)
    quick = _QUICK.get(site.node.op_type)
    return general if quick is None else quick(site, general)


def _general(site: Site) -> Function:
    op, attrs = site.node.op_type, dict(site.attrs)
    if op == "ConstantOfShape" and "value" in attrs:
        attrs["value"] = SimpleNamespace(values=numpy_helper.to_array(attrs["value"]))

    def run(*args: Any) -> Any:  # noqa: ANN401 - numbers, nested
        results = fold(op, attrs, [None if a is None else _array(a) for a in args])
        if results is None:
            raise ReadError(f"{op} cannot be computed of {args}", where=f"node '{site.node.name}'", fix=FIX)
        lists = [r.tolist() for r in results]
        return lists[0] if len(lists) == 1 else lists

    return run


def _array(value: Any) -> np.ndarray:  # noqa: ANN401
    array = np.asarray(value)
    return array if array.size else array.astype(np.int64)


def _flat(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, (list, tuple)) and not any(isinstance(v, (list, tuple)) for v in value)


def _single(value: Any) -> bool:  # noqa: ANN401
    return not isinstance(value, (list, tuple))


def _each(function: Callable[..., Any]) -> Callable[[Site, Function], Function]:
    """Elementwise over numbers and flat lists, one number standing for a whole list."""

    def build(_site: Site, general: Function) -> Function:
        def run(*args: Any) -> Any:  # noqa: ANN401
            if all(_single(a) for a in args):
                return function(*args)
            if not all(_single(a) or _flat(a) for a in args):
                return general(*args)
            size = max(len(a) for a in args if not _single(a))
            if any(not _single(a) and len(a) not in (1, size) for a in args):
                return general(*args)
            lists = [[a] * size if _single(a) else list(a) * (size // len(a)) for a in args]
            return [function(*row) for row in zip(*lists, strict=True)]

        return run

    return build


def _cast(site: Site, general: Function) -> Function:
    to = site.attrs["to"]
    if to == TensorProto.BOOL:
        return _each(bool)(site, general)
    floating = np.issubdtype(helper.tensor_dtype_to_np_dtype(to), np.floating)
    return _each(float if floating else int)(site, general)


def _gather(site: Site, general: Function) -> Function:
    def run(x: Any, index: Any) -> Any:  # noqa: ANN401
        if not _flat(x):
            return general(x, index)
        if _single(index):
            return x[index]
        return [x[i] for i in index] if _flat(index) else general(x, index)

    return run if site.attrs.get("axis", 0) == 0 else general


def _unsqueeze(site: Site, general: Function) -> Function:
    def run(x: Any, *rest: Any) -> Any:  # noqa: ANN401
        axes = site.attrs.get("axes") or (rest[0] if rest else ())
        axes = [axes] if _single(axes) else axes
        return [x] if _single(x) and len(axes) == 1 else general(x, *rest)

    return run


def _squeeze(_site: Site, general: Function) -> Function:
    return lambda x, *rest: x[0] if _flat(x) and len(x) == 1 else general(x, *rest)


def _concat(_site: Site, general: Function) -> Function:
    def run(*parts: Any) -> Any:  # noqa: ANN401
        return [v for part in parts for v in part] if all(_flat(p) for p in parts) else general(*parts)

    return run


def _slice(site: Site, general: Function) -> Function:
    def run(x: Any, *bounds: Any) -> Any:  # noqa: ANN401
        attrs = site.attrs
        start, end = (attrs["starts"], attrs["ends"]) if "starts" in attrs else bounds[:2]
        axes = attrs.get("axes") or (bounds[2] if len(bounds) > 2 and bounds[2] is not None else 0)
        step = bounds[3] if len(bounds) > 3 and bounds[3] is not None else 1
        limits: list[Any] = [start, end, axes, step]
        first, last, axis, stride = (v if _single(v) else v[0] for v in limits)
        if axis != 0 or not (_single(start) or len(start) == 1):
            return general(x, *bounds)
        return list(x)[first : None if stride < 0 and last <= -len(x) - 1 else last : stride]

    return run


def _reshape(_site: Site, general: Function) -> Function:
    def run(x: Any, shape: Sequence[int]) -> Any:  # noqa: ANN401
        leaves = _leaves(x)
        if 0 in shape or not leaves:
            return general(x, shape)
        rest = len(leaves) // abs(math.prod(shape))
        return _nested(leaves, [rest if n == -1 else n for n in shape])

    return run


def _leaves(value: Any) -> list[Any]:  # noqa: ANN401
    return [value] if _single(value) else [leaf for part in value for leaf in _leaves(part)]


def _nested(leaves: list[Any], shape: Sequence[int]) -> Any:  # noqa: ANN401
    if not shape:
        return leaves[0]
    size = len(leaves) // shape[0]
    return [_nested(leaves[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


def _transpose(site: Site, general: Function) -> Function:
    def run(x: Any) -> Any:  # noqa: ANN401
        table = not _single(x) and len(x) > 0 and all(_flat(row) for row in x)
        return [list(row) for row in zip(*x, strict=True)] if table else general(x)

    return lambda x: run(x) if site.attrs.get("perm", [1, 0]) == [1, 0] else general(x)


def _mod(site: Site, general: Function) -> Function:
    return _each(math.fmod if site.attrs.get("fmod") else operator.mod)(site, general)


def _identity(_site: Site, _general: Function) -> Function:
    return lambda x: x


def _product(site: Site, general: Function) -> Function:
    def run(x: Any, *rest: Any) -> Any:  # noqa: ANN401
        if not _flat(x):
            return general(x, *rest)
        return [math.prod(x)] if site.attrs.get("keepdims", 1) else math.prod(x)

    return run


def _filled(site: Site, general: Function) -> Function:
    value = site.attrs.get("value")
    fill = 0.0 if value is None else np.ravel(numpy_helper.to_array(value))[0].item()

    def run(shape: Sequence[int]) -> Any:  # noqa: ANN401
        return general(shape) if len(shape) > 1 else [fill] * shape[0] if shape else fill

    return run


def _divide(a: float, b: float) -> float:
    """Of whole numbers the quotient truncated toward zero."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return a // b if (a >= 0) == (b > 0) else -(-a // b)


_QUICK: Mapping[str, Callable[[Site, Function], Function]] = {
    "Cast": _cast,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Slice": _slice,
    "Identity": _identity,
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Mod": _mod,
    "Pow": _each(operator.pow),
    "ConstantOfShape": _filled,
    "Add": _each(operator.add),
    "Sub": _each(operator.sub),
    "Mul": _each(operator.mul),
    "Div": _each(_divide),
    "Min": _each(min),
    "Max": _each(max),
    "Neg": _each(operator.neg),
    "Floor": _each(math.floor),
    "Ceil": _each(math.ceil),
    "Sqrt": _each(math.sqrt),
    "Equal": _each(operator.eq),
    "Less": _each(operator.lt),
    "Greater": _each(operator.gt),
    "Not": _each(operator.not_),
    "Where": _each(lambda condition, a, b: a if condition else b),
}
