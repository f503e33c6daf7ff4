"""Weights that stay in the file beside the model: their tensors say where, and arrays are views of that file.

A tensor counts as mapped where its location is an absolute path; models on disk say it relative to themselves.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

# Types of which several elements share a byte.
_BITS: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4}
_BITS |= {getattr(TensorProto, name): 2 for name in ("INT2", "UINT2") if hasattr(TensorProto, name)}


def is_external(tensor: TensorProto) -> bool:
    """Whether the values lie in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def is_mapped(tensor: TensorProto) -> bool:
    """Whether they lie in another file that is known without the model's own path."""
    return is_external(tensor) and Path(entries(tensor).get("location", "")).is_absolute()


def entries(tensor: TensorProto) -> dict[str, str]:
    """What an external tensor says of its file: location, offset, length."""
    return {entry.key: entry.value for entry in tensor.external_data}


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes that a tensor of that type and shape takes in a file; strings take none."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    bits = _BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-math.prod(tensor.dims) * bits // 8)


def set_entries(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Say where the values lie: so many bytes of that file."""
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def set_location(tensor: TensorProto, location: str) -> None:
    """Say in which file the values lie; where in it stays as it is."""
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = location


def locate(tensor: TensorProto, folder: Path, beside: Path | None = None) -> None:
    """Make the location of a tensor of a model in that folder absolute.

    beside: where links may lead as well: models and weights in a cache are links into one folder of it. Raises OSError
    where the file is missing, ValueError where it is too short or lies outside of the folder.
    """
    stated = entries(tensor)
    location = stated.get("location", "")
    path = Path(os.path.normpath(location))
    if not location or location.endswith(os.sep) or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"'{location}' of '{tensor.name}' is not a file beside the model")
    path = folder.resolve() / path
    if not any(path.resolve().is_relative_to(root.resolve()) for root in (folder, beside or folder)):
        raise ValueError(f"'{location}' of '{tensor.name}' is a link that leads out of the model's folder")
    if path.exists() and not path.is_file():
        raise ValueError(f"'{location}' of '{tensor.name}' is not a regular file")
    needed = stored_bytes(tensor)
    offset, length = _number(stated, "offset", tensor), _number(stated, "length", tensor, needed)
    if length != needed:
        raise ValueError(f"'{tensor.name}' takes {needed} bytes and has {stated['length']} in {path}")
    if path.stat().st_size < offset + needed:
        raise ValueError(f"{path} ends before '{tensor.name}' does")
    set_entries(tensor, str(path), offset, needed)


def _number(stated: dict[str, str], key: str, tensor: TensorProto, default: int = 0) -> int:
    text = stated.get(key, str(default))
    if not re.fullmatch("[0-9]{1,19}", text):
        raise ValueError(f"the {key} of '{tensor.name}' is no size: {text[:40]!r}")
    return int(text)


def tensor_array(tensor: TensorProto) -> np.ndarray:
    """The values of a tensor: a read-only view of the file where it is mapped."""
    if not is_mapped(tensor):
        return numpy_helper.to_array(tensor)
    said = entries(tensor)
    path, offset, length = said["location"], int(said["offset"]), int(said["length"])
    if tensor.data_type in _BITS or not length:
        with Path(path).open("rb") as file:
            file.seek(offset)
            packed = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=file.read(length))
        return numpy_helper.to_array(packed)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(path, dtype, "r", offset, tuple(tensor.dims))
