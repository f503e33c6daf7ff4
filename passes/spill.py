"""A model without its weights: they move to a file, or away."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

WEIGHTS = "weights.bin"
# Smaller tensors are shapes and scalars, which ONNX Runtime folds and shape inference reads: they stay.
_SMALL_BYTES = 1024
_FOUR_BITS = frozenset((TensorProto.INT4, TensorProto.UINT4))
_TENSOR_OVERHEAD = 16  # bytes of a TensorProto beside name and values: tags, lengths, dimensions; an estimate


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return how many bytes the initializers of the main graph hold inside the model.

    It asks for sizes only: `ByteSize()` would serialise the whole model, and fail above 2 GiB.
    """
    kept = (tensor for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL)
    return sum(_tensor_bytes(tensor) for tensor in kept)


def spill(
    model: onnx.ModelProto, folder: Path, base_dir: str | Path | None = None, name: str = WEIGHTS
) -> onnx.ModelProto:
    """Write the weights into the file `name` in `folder` and return a copy of the model that refers to them there.

    base_dir: where the model's own external data lie; they are brought along. Needs no memory beyond one tensor.
    """
    with (folder / name).open("wb") as sink:
        light = without_weights(model, sink, base_dir)
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    return light


def without_weights(
    model: onnx.ModelProto, sink: BinaryIO | None = None, base_dir: str | Path | None = None
) -> onnx.ModelProto:
    """Return a copy of the model in which large initializers say that they lie in WEIGHTS.

    sink: receives their bytes, one after another; without it the copy has names, types and shapes only.
    """
    light = copy_except(model, onnx.ModelProto(), "graph")
    copy_except(model.graph, light.graph, "initializer")
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.STRING or (_tensor_bytes(tensor) < _SMALL_BYTES and not _external(tensor)):
            light.graph.initializer.add().CopyFrom(tensor)
        else:
            _refer(light.graph.initializer.add(), tensor, sink, base_dir)
    return light


def copy_except(source, target, field: str):  # noqa: ANN001, ANN201 - any protobuf message, returned as it came
    """Copy all fields but one from a message to an empty one of its kind, and return that one."""
    for descriptor, value in source.ListFields():
        if descriptor.name == field:
            continue
        if isinstance(value, int | float | str | bytes):
            setattr(target, descriptor.name, value)
        elif hasattr(value, "extend"):
            getattr(target, descriptor.name).extend(value)
        else:
            getattr(target, descriptor.name).CopyFrom(value)
    return target


def _refer(target: TensorProto, tensor: TensorProto, sink: BinaryIO | None, base_dir: str | Path | None) -> None:
    target.name, target.data_type, target.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
    target.dims.extend(tensor.dims)
    entries = {"location": WEIGHTS}
    if sink is not None:
        content = _content(tensor, base_dir)
        # Offsets on pages, so that the file can be mapped.
        sink.write(bytes(-sink.tell() % 4096))
        entries |= {"offset": str(sink.tell()), "length": str(len(content))}
        sink.write(content)
    for key, value in entries.items():
        target.external_data.add(key=key, value=value)


def _content(tensor: TensorProto, base_dir: str | Path | None) -> bytes:
    if _external(tensor):
        loaded = TensorProto()
        loaded.CopyFrom(tensor)
        external_data_helper.load_external_data_for_tensor(loaded, str(base_dir or "."))
        return loaded.raw_data
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def _external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _tensor_bytes(tensor: TensorProto) -> int:
    """Size in memory; strings count nothing, and what packs several elements into a byte counts a byte each."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def file_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the model in one file. Weights are not serialised for it, which takes seconds a GB and ends at 2 GiB."""
    graph = model.graph
    weights = sum(_file_bytes(tensor) for tensor in graph.initializer)
    rest = [*graph.node, *graph.input, *graph.output, *graph.value_info, *model.metadata_props]
    return weights + sum(part.ByteSize() + 3 for part in rest)  # 3: a tag, and a length in two bytes


def _file_bytes(tensor: TensorProto) -> int:
    if not tensor.HasField("raw_data"):
        return tensor.ByteSize()
    bits = 4 if tensor.data_type in _FOUR_BITS else 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return math.prod(tensor.dims) * bits // 8 + len(tensor.name) + _TENSOR_OVERHEAD
