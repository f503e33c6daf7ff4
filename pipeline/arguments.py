"""Whether what a caller gives is of a kind that the argument takes: one table for all public functions."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, ParamSpec, TypeVar

import onnx

from ..passes.errors import UsageError, a_kind
from ..passes.graph.model import Graph
from ..passes.selection.budget import Budget
from ..passes.selection.plans.plan import Plan
from ..runtime.data.given import is_data
from ..runtime.data.preprocess import Preprocessing

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
_MOST = 2**31 - 1  # of what is counted: what ONNX Runtime, numpy and torch take as a number


class _Kind(NamedTuple):
    """What an argument takes: its name, whether a value is one, and what to give instead of one that is not."""

    name: str
    fits: Callable[[object], bool]
    give: str = ""


def _of(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _whole(least: int) -> _Kind:
    name = f"a whole number from {least} on, below 2^31"
    return _Kind(name, lambda value: type(value) is int and least <= value <= _MOST)


def _named_arrays(value: object) -> bool:
    return isinstance(value, Mapping) and all(hasattr(array, "shape") for array in value.values())


def _is_alignment(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and value == "auto")


def _several(value: object) -> bool:
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return many and getattr(value, "ndim", 1) == 1


_MODEL = _Kind(
    "a model",
    _of(str, os.PathLike, bytes, onnx.ModelProto, Graph),
    "the path of an .onnx file, its bytes, or a ModelProto",
)
_DATA = _Kind(
    "data",
    is_data,
    "a path, module:function, arrays or tensors, batches, a generator, a DataLoader or a CalibrationDataReader",
)
_WORD = _Kind("a text", _of(str), "a str")
_PATH = _Kind("a path", _of(str, os.PathLike), "a str or a Path")
_FLAG = _Kind("a truth value", _of(bool), "True or False")
_BY_NAME = _Kind("a dictionary", _of(Mapping), "a dictionary by name")


def _numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(type(n) in (int, float) for n in value)


_KINDS: Mapping[str, _Kind] = {
    **dict.fromkeys(("model", "teacher", "reference"), _MODEL),
    **dict.fromkeys(("calibration", "data", "train", "evaluate", "evaluation"), _DATA),
    **dict.fromkeys(("preset", "reconstruct", "exclude", "replace_head", "smallest", "device", "effort"), _WORD),
    **dict.fromkeys(("moments", "save_moments", "folder"), _PATH),
    **dict.fromkeys(("inexact", "keep_blocks", "measure", "resume"), _FLAG),
    **dict.fromkeys(("samples", "evaluate_samples", "threads", "latency_batch"), _whole(1)),
    "sizes": _BY_NAME,
    "example": _Kind("an input", _named_arrays, "a dictionary of arrays by input name"),
    "budgets": _Kind("a list of budgets", _several, "some such as (0.8, 0.6) or [Budget(latency='5ms')]"),
    "levels": _Kind("a list of shares", _numbers, "numbers between 0 and 1, such as [0.25, 0.5]"),
    "seed": _whole(0),
    "align": _Kind("an alignment", _is_alignment, "a whole number from 1 on, or 'auto'"),
    "plan": _Kind("a plan", _of(Plan, str, os.PathLike), "a Plan, or the path of a plan.json"),
    "budget": _Kind("a budget", _of(Budget, int, float, str), "a Budget, a number, or a text such as '50%'"),
    "criterion": _Kind(
        "a criterion",
        lambda value: isinstance(value, str) or callable(getattr(value, "rank", None)),
        "a word such as 'obs', or an object with a method rank (docs/methods.md)",
    ),
    "allocation": _Kind(
        "an allocation",
        lambda value: isinstance(value, str) or callable(getattr(value, "growth", None)),
        "a word such as 'uniform', or an object with a method growth (passes/selection/methods.py)",
    ),
    "metric": _Kind(
        "a metric", lambda value: isinstance(value, str) or callable(value), "a word such as 'top1', or a function"
    ),
    "max_drop": _Kind("a drop", _of(int, float, str), "a number, or a text such as '1%'"),
    "preprocessing": _Kind("a preprocessing", _of(Preprocessing), "an onnx_prune.Preprocessing"),
    "recipe": _Kind("a recipe", lambda value: hasattr(value, "epochs"), "a Recipe (docs/finetuning.md)"),
    "progress": _Kind("a listener", callable, "a function that takes one text"),
    "watch": _Kind("a listener", callable, "a function that takes one epoch"),
}


def check_kinds(**given: object) -> None:
    """Raise UsageError for the first of these arguments that is not of its kind."""
    for name, value in given.items():
        if not _KINDS[name].fits(value):
            raise _wrong(name, value, name)


def _wrong(name: str, value: object, where: str) -> UsageError:
    kind = _KINDS[name]
    return UsageError(f"{_shown(value)} is not {kind.name}", where=where, fix=f"give {kind.give or kind.name}")


def checked(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """The function, which raises UsageError for an argument of a kind that it does not take.

    None is taken where the annotation says so. Every argument must be in the table.
    """
    signature = inspect.signature(function)
    assert signature.parameters.keys() <= _KINDS.keys(), "every public argument has a kind"

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            optional = "None" in str(signature.parameters[name].annotation)
            if not (value is None and optional) and not _KINDS[name].fits(value):
                raise _wrong(name, value, f"{function.__name__}({name}=...)")
        return function(*args, **kwargs)

    return call


def _shown(value: object) -> str:
    """A short value as it is written, of others the type."""
    if value is None or isinstance(value, str | int | float):
        return repr(value) if len(repr(value)) < 40 else f"a long {type(value).__name__}"
    return a_kind(value)
