"""Whether two models compute the same, on given input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from ...passes.graph.values import float_types
from ..device import Device
from ..session import Runnable, open_session
from .saturation import observed, tap, taps


@dataclass(frozen=True, slots=True)
class Shown:
    """What a model computes on some input: its outputs, by name."""

    feeds: Mapping[str, np.ndarray]
    outputs: Mapping[str, Any]
    device: Device = "auto"


@dataclass(frozen=True, slots=True)
class Proof:
    """How far two models are apart: `error` is the largest found, at the output `output`, over `runs` inputs.

    tensors: how many tensors that the cut changed were seen with finite, varied numbers, and how many there are
    inner: the largest difference of a kept channel in any tensor, relative to the channel
    unseen: of cut groups that no input has shown: the name, and the node that shows nothing
    shown: what the first model computes on the first input
    """

    error: float
    output: str
    runs: int
    tensors: tuple[int, int] = (0, 0)
    inner: float = 0.0
    unseen: Mapping[str, str] = field(default_factory=dict)
    shown: Shown | None = field(default=None, compare=False)


def max_relative_error(
    first: Runnable,
    second: Runnable,
    feeds_list: Sequence[Mapping[str, np.ndarray]],
    *,
    device: Device = "auto",
) -> Proof:
    """Compare `first` with the reference `second` on each of `feeds_list`, both unoptimised, one after the other.

    Outputs behind a sigmoid or softmax are compared in front of it (see observe.py). The error of an output is
    `output_error`; outputs are matched by name, and one that either model lacks counts inf. Memory: the outputs of one
    model over all feeds, and one opened model. Raises ReadError if a model does not run.
    """
    chosen = observed(second.graph) if isinstance(second, onnx.ModelProto) else {}
    references = list(_outputs(second, feeds_list, device, chosen))
    worst, where = 0.0, ""
    own: list[dict[str, Any]] = []
    for values, reference in zip(_outputs(first, feeds_list, device, chosen, own=own), references, strict=True):
        for name in {**reference, **values}:
            error = output_error(values[name], reference[name]) if name in values and name in reference else math.inf
            if not where or error > worst:
                worst, where = error, name
    return Proof(worst, where, len(feeds_list), shown=Shown(feeds_list[0], own[0], device) if own else None)


def own_error(model: Runnable, feeds_list: Sequence[Mapping[str, np.ndarray]], *, device: Device = "auto") -> float:
    """How far a model is from itself where only rounding differs: optimised, and on floats one step away.

    It is large where the model turns rounding errors into large ones, as a softmax of almost equal huge logits does.
    """
    chosen = observed(model.graph) if isinstance(model, onnx.ModelProto) else {}
    beside = [{name: _one_step(array) for name, array in feeds.items()} for feeds in feeds_list]
    references = list(_outputs(model, feeds_list, device, chosen))
    others = [
        _outputs(model, feeds_list, device, chosen, optimise=True),
        _outputs(model, beside, device, chosen),
    ]
    pairs = ((values, reference) for found in others for values, reference in zip(found, references, strict=True))
    return _largest((values[name], reference[name]) for values, reference in pairs for name in reference)


def _one_step(array: np.ndarray) -> np.ndarray:
    return np.asarray(np.nextafter(array, array.dtype.type(np.inf))) if array.dtype.kind == "f" else array


def in_halves(model: onnx.ModelProto) -> bool:
    """Whether the model holds numbers of half precision."""
    return bool(float_types(model.graph) & {TensorProto.FLOAT16, TensorProto.BFLOAT16})


def output_error(value: Any, reference: Any) -> float:  # noqa: ANN401 - whatever a session returns
    """How far a value is from its reference: 0 is equal, inf is another shape, length, or place of a NaN or infinity.

    Floats: max|a - b| / max|b| over the finite elements, in float64, where an all-zero b divides by 1. Integers,
    booleans and strings: the fraction of elements that differ. Sequences and maps: the largest of their members.
    """
    if isinstance(value, Mapping) and isinstance(reference, Mapping):
        return math.inf if value.keys() != reference.keys() else _largest((value[k], reference[k]) for k in reference)
    if isinstance(value, list) and isinstance(reference, list):
        return math.inf if len(value) != len(reference) else _largest(zip(value, reference, strict=True))
    return _array_error(np.asarray(value), np.asarray(reference))


def _outputs(
    model: Runnable,
    feeds_list: Iterable[Mapping[str, np.ndarray]],
    device: Device,
    chosen: Mapping[str, str],
    *,
    optimise: bool = False,
    own: list[dict[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """What the model shows for each output, by the output's name; own: receives the outputs themselves."""
    hidden = {output: tap(output) for output, tensor in chosen.items() if output != tensor}
    additions = taps(chosen) if hidden and isinstance(model, onnx.ModelProto) else None
    session = open_session(model, device=device, optimise=optimise, additions=additions)
    names = session.outputs if own is not None else [name for name in session.outputs if name not in hidden]
    for feeds in feeds_list:
        shown = session.run(feeds, names)
        if own is not None:
            own.append({name: value for name, value in shown.items() if name not in hidden.values()})
            shown = {name: value for name, value in shown.items() if name not in hidden}
        yield {**shown, **{output: shown.pop(name) for output, name in hidden.items() if name in shown}}


def _largest(pairs: Iterable[tuple[Any, Any]]) -> float:
    return max((output_error(value, reference) for value, reference in pairs), default=0.0)


def _array_error(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return math.inf
    if a.size == 0:
        return 0.0
    if a.dtype.kind in "biuOUS":
        return float(np.mean(a != b))
    # bfloat16 and the like are not numpy's own kinds; complex numbers do not occur in ONNX models that run.
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return math.inf
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / (np.abs(b[finite]).max() or 1.0))
