"""Reading moments that a run has kept: the file may come from anyone, so that all of it is checked."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReadError
from .moments import FORMAT, VERSION, ActivationStatistics, Moments, MomentsSet

Array = np.ndarray
_AGAIN = "calibrate again with this model"
_MOST = 1 << 40  # rows
# What numpy, zipfile and json raise of damaged files; RuntimeError is also what is nested too deeply, or encrypted.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RuntimeError),
    *(zipfile.BadZipFile, zipfile.LargeZipFile),
)
_SLACK = 1e-6  # of what a product of two moments may exceed its bound by: rounding


def load_moments(path: str | os.PathLike[str], graph_sha256: str) -> MomentsSet:
    """Read what `MomentsSet.save` wrote. Raises ReadError where it is something else, or of another graph."""
    arrays, header = _unpacked(path)
    if (header.get("format"), header.get("version")) != (FORMAT, VERSION):
        raise ReadError("these are not moments that this version can read", where=str(path), fix=_AGAIN)
    if header.get("graph_sha256") != graph_sha256:
        raise ReadError("the moments belong to another graph", where=str(path), fix=_AGAIN)
    try:
        return _assembled(graph_sha256, arrays, header)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise spoilt_moments(path, error) from error


def spoilt_moments(path: str | os.PathLike[str], reason: object) -> ReadError:
    """The error that the file holds no moments of anything."""
    what = " ".join(str(reason).split())[:200]
    return ReadError("the moments are spoilt", where=f"{path}: {what or type(reason).__name__}", fix=_AGAIN)


def _unpacked(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays of the file, and its header."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ReadError("this is no regular file", where=str(path), fix="give a file that --save-moments wrote")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        return arrays, dict(header)
    except _UNREADABLE as error:
        raise ReadError("the moments cannot be read", where=f"{path}: {error}", fix=_AGAIN) from error


def _assembled(graph_sha256: str, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> MomentsSet:
    """Raises ValueError and the like where the parts do not fit together."""

    def get(prefix: str) -> dict[str, Array]:
        return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}

    entries, names = header["moments"], header["activations"]
    parts = [_checked(Moments(**{"second": None, **e, **get(f"moments.{i}.")})) for i, e in enumerate(entries)]
    numbers = {str(name): [_whole(i, len(parts) - 1, 0) for i in of] for name, of in header["consumers"].items()}
    if not all(numbers.values()):
        raise ValueError("a consumer has no moments")
    activations = {str(n): _statistics(ActivationStatistics(**get(f"activations.{i}."))) for i, n in enumerate(names)}
    return MomentsSet(graph_sha256, {n: tuple(parts[i] for i in of) for n, of in numbers.items()}, activations)


def _checked(moments: Moments) -> Moments:
    """The moments, which could be those of some rows. Raises ValueError for any others."""
    rows = _whole(moments.rows, _MOST)
    wide = _whole(moments.channels, 1 << 27) * _whole(moments.kernel, 1 << 27)
    mean = _floats(moments.mean, (wide,))
    if moments.second is None:
        count = 0 if moments.samples is None else len(moments.samples)
        samples = _floats(moments.samples, (max(count, 1), wide))
        return Moments(rows, mean, None, moments.channels, moments.kernel, samples.astype(np.float32, copy=False))
    second = _floats(moments.second, (wide, wide))
    power = second.diagonal()
    bound = np.sqrt(np.maximum(power, 0))
    if (power < 0).any() or (np.abs(mean) > bound * (1 + _SLACK)).any():
        raise ValueError("a mean is larger than its second moment allows")
    slack = bound * (1 + _SLACK)
    with np.errstate(over="ignore"):  # of numbers that no data have
        larger = any((np.abs(row) > most * slack).any() for row, most in zip(second, bound, strict=True))
    if larger:
        raise ValueError("a second moment is larger than those of its two factors allow")
    if not np.allclose(second, second.T, rtol=_SLACK, atol=0):
        raise ValueError("the second moments are not symmetric")
    return Moments(rows, mean, second, moments.channels, moments.kernel)


def _statistics(found: ActivationStatistics) -> ActivationStatistics:
    zeros = _floats(found.zeros, np.shape(found.mean))
    if zeros.ndim != 1 or ((zeros < 0) | (zeros > 1)).any():
        raise ValueError("shares of zeros are none")
    return ActivationStatistics(zeros, _floats(found.mean, zeros.shape), _floats(found.variance, zeros.shape))


def _whole(number: object, most: int, least: int = 1) -> int:
    if type(number) is not int or not least <= number <= most:
        raise ValueError(f"{str(number)[:40]} is no whole number from {least} to {most}")
    return number


def _floats(array: object, shape: tuple[int, ...]) -> Array:
    found = np.asarray(array)
    if found.dtype.kind != "f" or found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"an array of {found.dtype} {list(found.shape)} is not {list(shape)} finite numbers")
    return found if found.dtype == np.float32 else found.astype(np.float64, copy=False)
