"""Data that a function yields, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import numpy as np

from ...passes.errors import ReadError
from .batches import Data, of_size
from .functions import failed, is_theirs, users_code
from .given import Named, as_array
from .inputs import ModelInput, check_feeds
from .sources import LABELS, Batch, class_numbers

_END = object()


def stream(
    function: Callable[[], Iterable[object]],
    inputs: Sequence[ModelInput],
    samples: int | None,
    *,
    targets: bool = False,
) -> Data:
    """Batches that a function yields: feeds, or (feeds, labels), of arrays or tensors; see `given.DataSource`.

    targets: labels may be arrays of any kind, a row a sample. Raises ReadError where it yields nothing,
    something else, or fails: then with the user's own exception.
    """
    where = str(function)
    first = next(_called(function, where), None)
    if first is None:
        raise ReadError("the function yields nothing", where=where, fix="yield a batch of feeds")
    labelled = _batch(first, inputs, where, targets).labels is not None
    fixed = inputs[0].batch

    def batches() -> Iterator[Batch]:
        seen = 0
        found = (_batch(item, inputs, where, targets) for item in _called(function, where))
        for batch in of_size(found, fixed) if fixed else found:
            yield batch
            seen += batch.size
            if samples is not None and seen >= samples:
                return
        if not seen:
            raise ReadError(
                "the function yields nothing when it is called again",
                where=where,
                fix="yield the same batches every time: data are read more than once",
            )

    return Data(None, (), labelled, batches, fixed=bool(fixed))


def _called(function: Callable[[], Iterable[object]], where: str) -> Iterator[object]:
    """What the user's function yields; raises ReadError with the last line of their traceback where it fails."""
    aside = users_code if isinstance(function, Named) else nullcontext  # from Python it prints where it likes
    try:
        with aside():
            items = iter(function())
        while True:
            with aside():
                item = next(items, _END)
            if item is _END:
                return
            yield item
    except BaseException as error:
        if not is_theirs(error):
            raise
        raise failed(error, where, "that yields data") from error


def _batch(item: object, inputs: Sequence[ModelInput], where: str, targets: bool) -> Batch:
    """What was yielded: feeds, or (feeds, labels)."""
    feeds, labels = _parted(item, inputs, where, targets)
    arrays = check_feeds({k: as_array(v) for k, v in feeds.items()}, inputs, where, whole=bool(inputs[0].batch))
    if any(array.ndim and not len(array) for array in arrays.values()):
        raise ReadError("the data have an empty batch", where=where, fix="yield at least one sample")
    if labels is None:
        return Batch(arrays, None)
    known = np.asarray(as_array(labels))
    rows = len(next(iter(arrays.values())))
    if not targets and known.ndim and len(known) != rows:
        raise ReadError(
            f"the data have {len(known)} labels for {rows} samples", where=where, fix="yield one label a sample"
        )
    return Batch(arrays, known if targets else class_numbers(known, where))


def _parted(
    item: object, inputs: Sequence[ModelInput], where: str, targets: bool
) -> tuple[Mapping[str, object], object]:
    """(feeds, labels) of a mapping, an array, or a list of one array an input, and maybe labels behind it."""
    names = [i.name for i in inputs]
    if isinstance(item, Mapping):
        label = next((key for key in LABELS if key in item and key not in names), None)
        return {str(k): v for k, v in item.items() if k != label}, None if label is None else item[label]
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Mapping):
        return item[0], item[1]
    parts = [*item] if isinstance(item, tuple | list) else [item]
    if all(isinstance(as_array(part), np.ndarray) for part in parts[: len(names)]):
        if len(parts) == len(names):
            return dict(zip(names, parts, strict=True)), None
        if len(parts) == len(names) + 1:
            return dict(zip(names, parts[:-1], strict=True)), parts[-1] if targets else _classes(parts[-1])
    raise ReadError(
        f"the data have a {type(item).__name__} for a batch",
        where=where,
        fix="yield {input name: array}, that and labels, or one array an input and maybe labels",
    )


def _classes(labels: object) -> object:
    """Labels where they are class numbers; what a loader gives beside its images may be boxes, which nobody needs."""
    array = as_array(labels)
    return array if isinstance(array, np.ndarray) and array.dtype.kind in "iu" and array.ndim == 1 else None
