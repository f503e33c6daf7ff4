"""A model without its weights: they move to a file, or away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

from .mapped import is_external, is_mapped, set_entries, set_location, stored_bytes, tensor_array

WEIGHTS = "weights.bin"
# Weights above this go through a temporary file that ONNX Runtime maps: with 640 MiB of them, opening took 20 MiB
# instead of 660 MiB more, and half of the time. Windows cannot remove a mapped file, so there only what protobuf
# cannot hold (2 GiB) takes that way.
SPILL_BYTES = 64 << 20 if os.name == "posix" else (2 << 30) - (64 << 20)
# Smaller tensors are shapes and scalars, which ONNX Runtime folds and shape inference reads: they stay.
_SMALL_BYTES = 1024
_PAGE = 4096  # offsets are multiples of it, so that the file can be mapped
_TENSOR_OVERHEAD = 16  # bytes of a TensorProto beside name and values: tags, lengths, dimensions; an estimate


def weight_bytes(model: onnx.ModelProto, *, mapped: bool = False) -> int:
    """Return how many bytes the initializers of the main graph hold inside the model; mapped: those outside as well.

    It asks for sizes only: `ByteSize()` would serialise the whole model, and fail above 2 GiB.
    """
    return sum(stored_bytes(tensor) for tensor in model.graph.initializer if mapped or not is_external(tensor))


def spill(
    model: onnx.ModelProto, folder: Path, base_dir: str | Path | None = None, name: str = WEIGHTS
) -> onnx.ModelProto:
    """Write the weights into the file `name` in `folder` and return a copy of the model that refers to them there.

    base_dir: where the model's own external data lie; they are brought along. Needs no memory beyond one tensor.
    """
    with (folder / name).open("wb") as sink:
        light = without_weights(model, sink, base_dir)
    for tensor in light.graph.initializer:
        set_location(tensor, name)
    return light


def beside_folder(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Path]:
    """A copy of a model with mapped weights that says their files relative to a folder, and that folder."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    mapped = [entry for t in light.graph.initializer if is_mapped(t) for entry in t.external_data]
    places = [entry for entry in mapped if entry.key == "location"]
    folder = os.path.commonpath([str(Path(entry.value).parent) for entry in places])
    for entry in places:
        entry.value = Path(entry.value).relative_to(folder).as_posix()
    return light, Path(folder)


def without_weights(
    model: onnx.ModelProto, sink: BinaryIO | None = None, base_dir: str | Path | None = None
) -> onnx.ModelProto:
    """Return a copy of the model in which large initializers say that they lie in WEIGHTS.

    sink: receives their bytes, one after another; without it the copy has names, types and shapes only.
    """
    light = copy_except(model, onnx.ModelProto(), "graph")
    copy_except(model.graph, light.graph, "initializer")
    for tensor in model.graph.initializer:
        if is_small(tensor):
            light.graph.initializer.add().CopyFrom(tensor)
        else:
            refer(light.graph.initializer.add(), tensor, sink, base_dir)
    return light


def is_small(tensor: TensorProto) -> bool:
    """Whether the tensor stays in the model: strings, and what ONNX Runtime folds."""
    small = stored_bytes(tensor) < _SMALL_BYTES and not is_external(tensor)
    return small or tensor.data_type == TensorProto.STRING


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


def refer(
    target: TensorProto, tensor: TensorProto, sink: BinaryIO | None = None, base_dir: str | Path | None = None
) -> None:
    """Make `target` the same tensor, whose values lie in WEIGHTS; write them there, if a sink is given."""
    target.name, target.data_type, target.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
    target.dims.extend(tensor.dims)
    if sink is None:
        target.external_data.add(key="location", value=WEIGHTS)
        return
    content = _content(tensor, base_dir)
    sink.write(bytes(-sink.tell() % _PAGE))
    set_entries(target, WEIGHTS, sink.tell(), stored_bytes(tensor))
    sink.write(content)


def _content(tensor: TensorProto, base_dir: str | Path | None) -> bytes | memoryview:
    if is_mapped(tensor):
        return np.ravel(tensor_array(tensor)).view(np.uint8).data
    if is_external(tensor):
        loaded = TensorProto()
        loaded.CopyFrom(tensor)
        external_data_helper.load_external_data_for_tensor(loaded, str(base_dir or "."))
        return loaded.raw_data
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def file_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the model in one file. Weights are not serialised for it, which takes seconds a GB and ends at 2 GiB."""
    graph = model.graph
    weights = sum(_file_bytes(tensor) for tensor in graph.initializer)
    rest = [*graph.node, *graph.input, *graph.output, *graph.value_info, *model.metadata_props]
    return weights + sum(part.ByteSize() + 3 for part in rest)  # 3: a tag, and a length in two bytes


def _file_bytes(tensor: TensorProto) -> int:
    if not tensor.HasField("raw_data") and not is_mapped(tensor):
        return tensor.ByteSize()
    return stored_bytes(tensor) + len(tensor.name) + _TENSOR_OVERHEAD
