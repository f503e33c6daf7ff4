"""What users give as data, from Python and by name, as one of three things: a path, arrays, or a function."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...passes.errors import UsageError, a_kind
from .functions import imported, names_function
from .inputs import ModelInput

# A path of files, or "module:function"; arrays by input name; one array, of a model with one input; a function that
# is called without arguments and yields batches; anything that yields batches when it is iterated: a list, a generator,
# a torch DataLoader; or ONNX Runtime's CalibrationDataReader (`get_next()`). Torch tensors stand for arrays everywhere.
# A batch is {input name: array}, that and labels, or one array an input and maybe labels.
DataSource = str | os.PathLike[str] | Mapping[str, Any] | Callable[[], Iterable[object]] | Iterable[object] | Any
Known = Path | Mapping[str, np.ndarray] | Callable[[], Iterable[object]]
KINDS = "a folder, zip or tar of images, .npz, .npy or module:function"


class Replayed:
    """What can be iterated once, as a function that yields the same every time; what was yielded is kept."""

    def __init__(self, items: Iterator[object], name: str) -> None:
        self._items, self._kept, self._name = items, [], name

    def __call__(self) -> Iterator[object]:
        at = 0
        while True:
            if at == len(self._kept):
                try:
                    self._kept.append(next(self._items))
                except StopIteration:
                    return
            yield self._kept[at]
            at += 1

    def __str__(self) -> str:
        return self._name


class Listed:
    """What can be iterated again and again, as a function."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = items

    def __call__(self) -> Iterator[object]:
        return iter(self._items)

    def __str__(self) -> str:
        return f"the {type(self._items).__name__} given"


class Named:
    """A function under the name that it was given by."""

    def __init__(self, function: Callable[[], Iterable[object]], name: str) -> None:
        self._function, self._name = function, name

    def __call__(self) -> Iterable[object]:
        return self._function()

    def __str__(self) -> str:
        return self._name


def source_words(source: object) -> str:
    """Where data come from, for people: a path or name, else what kind of thing was given."""
    named = isinstance(source, str | os.PathLike | Named | Listed | Replayed)
    return str(source) if named else f"the {type(source).__name__} given"


def is_data(source: object) -> bool:
    """Whether it is of a kind that data can be; what is in it shows when it is read."""
    if isinstance(source, str | os.PathLike | Mapping) or callable(source) or _is_array(source):
        return True
    if isinstance(source, bytes | io.IOBase):
        return False
    if isinstance(source, list | tuple):
        return all(isinstance(part, Mapping | list | tuple) or _is_array(part) for part in source)
    return callable(getattr(source, "get_next", None)) or hasattr(source, "__iter__")


def repeatable(source: DataSource | None) -> DataSource | None:
    """The same data as something that can be read several times: generators and readers are read once, and kept."""
    if source is None or isinstance(source, str | os.PathLike | Mapping) or _is_array(source):
        return source
    if not is_data(source):
        raise _no_data(source)
    reader = getattr(source, "get_next", None)
    name = f"the {type(source).__name__} given"
    if callable(reader):
        return Replayed(iter(reader, None), name)
    if callable(source) and not isinstance(source, Iterable):
        return source
    if isinstance(source, Iterator) or _shuffled(source):
        return Replayed(iter(source), name)
    return Listed(source)


def _no_data(source: object) -> UsageError:
    return UsageError(
        f"{a_kind(source)} is not data",
        where="the data given",
        fix=f"give {KINDS}; or arrays, batches, a generator, a DataLoader or a CalibrationDataReader",
    )


def known_source(source: DataSource, inputs: Sequence[ModelInput]) -> Known:
    """A path, arrays by input name, or a function that yields batches. Raises UsageError for anything else."""
    source = repeatable(source)
    if source is None:
        raise _no_data(source)
    if isinstance(source, str) and names_function(source):
        return Named(cast("Callable[[], Iterable[object]]", imported(source, "that yields data")), source)
    if isinstance(source, str | os.PathLike):
        return Path(source)
    if isinstance(source, Mapping):
        return {str(name): np.asarray(as_array(array)) for name, array in source.items()}
    if _is_array(source):
        return {_only(inputs): np.asarray(as_array(source))}
    return cast("Callable[[], Iterable[object]]", source)


def _only(inputs: Sequence[ModelInput]) -> str:
    if len(inputs) != 1:
        raise UsageError(
            f"one array was given, and the model has {len(inputs)} inputs",
            where="the data given",
            fix="give {input name: array}",
        )
    return inputs[0].name


def _shuffled(source: object) -> bool:
    """Whether it is a DataLoader that gives another order each time."""
    return "Random" in type(getattr(source, "sampler", None)).__name__


def _is_array(value: object) -> bool:
    return isinstance(as_array(value), np.ndarray)


def as_array(value: object) -> object:
    """A numpy array of an array or a tensor, on whatever device; other things as they are."""
    if isinstance(value, np.ndarray):
        return value
    if callable(getattr(value, "detach", None)) and hasattr(value, "cpu"):  # a file can be detached as well
        tensor: Any = value
        return tensor.detach().cpu().numpy()
    return np.asarray(value) if hasattr(value, "__array__") and hasattr(value, "dtype") else value
