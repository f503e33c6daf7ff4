"""A model from a path, bytes or a ModelProto, with all of its weights; what is no valid model is refused here."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from ..errors import ReadError, UsageError, a_kind
from .mapped import entries, is_external, is_mapped, locate, stored_bytes, tensor_array
from .tidy import tidied
from .valid.text import check_text

OLDEST_OPSET, _LAST_OPSET = 7, 2**31 - 1
_LARGEST = 1 << 40  # entries of an axis, also where another axis has none
CHECK = "onnx.checker.check_model says what else is wrong with the file"

_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
# Weights beside a model stay there above this: to read 64 MiB takes less than to open a file again and again.
MAPPED_BYTES = 64 << 20

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto


def read_model(source: ModelSource, *, mapped: bool = False) -> tuple[onnx.ModelProto, bool]:
    """The model, and whether its weights lay in a file beside it; a ModelProto is returned as it is.

    mapped: many weights that lie beside the model stay there, and their tensors say where (see mapped.py).
    Raises ReadError for what is no model, is older than opset 7, lacks its weights, or reads what nothing makes.
    """
    where = str(source) or "an empty path" if isinstance(source, str | os.PathLike) else a_kind(source)
    model = _parse(source, where)
    if not model.graph.output:
        raise ReadError("this is not an ONNX model, or it has no outputs", where=where, fix=CHECK)
    check_text(model, where)
    _check_opset(model, where)
    _check_sizes(_tensors(model.graph), where)
    model = tidied(model, where)
    _check_names(model.graph, where)
    tensors = list(_tensors(model.graph))
    external = any(is_external(tensor) for tensor in tensors)
    known = isinstance(source, onnx.ModelProto) and mapped and all(is_mapped(t) for t in tensors if is_external(t))
    if external and not known:
        _fetch(model, tensors, source, where, mapped=mapped)
    return model, external


def external_files(path: Path) -> list[Path]:
    """The files beside a model that it reads; none of what is no model."""
    try:
        model = _parse(path, str(path))
    except ReadError:
        return []
    names = {entries(tensor).get("location", "") for tensor in _tensors(model.graph) if is_external(tensor)}
    return [path.parent / name for name in sorted(names) if name]


def _parse(source: ModelSource, where: str) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        return source
    if not isinstance(source, bytes | str | os.PathLike):
        raise UsageError("a model is a path, bytes or an onnx.ModelProto", where=where, fix="give one of these")
    if not isinstance(source, bytes):
        check_regular(source)
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        return onnx.load(source, load_external_data=False)
    except FileNotFoundError:
        raise ReadError("the model file does not exist", where=where, fix="check the path") from None
    except IsADirectoryError:
        raise ReadError("this is a folder, not a model file", where=where, fix="name the .onnx file in it") from None
    except Exception as error:  # protobuf's DecodeError has no public base that onnx re-exports
        raise ReadError(f"the file cannot be read as ONNX ({type(error).__name__})", where=where, fix=CHECK) from error


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise ReadError for a device or a pipe, which may never end; what is not there is for its reader to say."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        where = f"{str(path)[:200]}: {getattr(error, 'strerror', None) or error}"
        raise ReadError("the file cannot be read", where=where, fix="check the path") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ReadError("this is a device or a pipe, not a file", where=str(path), fix="give a regular file")


def _check_opset(model: onnx.ModelProto, where: str) -> None:
    if model.ir_version < 1:
        raise ReadError("the model does not say its IR version, without which nothing reads it", where=where, fix=CHECK)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is None and any(node.domain in ("", "ai.onnx") for node in model.graph.node):
        raise ReadError("the model does not say its opset", where=where, fix=CHECK)
    if any(not 0 <= o.version <= _LAST_OPSET for o in model.opset_import):
        raise ReadError("the model names an opset that cannot be", where=where, fix=CHECK)
    if opset is not None and opset < OLDEST_OPSET:
        raise ReadError(
            f"opset {opset} is too old: {OLDEST_OPSET} is the oldest that can be read",
            where=where,
            fix="convert the model with onnx.version_converter, or export it again",
        )


def _check_names(graph: onnx.GraphProto, where: str) -> None:
    """Each name is made once, and before it is read."""
    for name, count in Counter(value.name for value in graph.input).items():
        if count > 1:
            raise ReadError(f"the model declares the input '{name}' twice", where=where, fix=CHECK)
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        here = f"{where}: {node.op_type} '{node.name or next(iter(node.output), '')}'"
        for name in node.input:
            if name and name not in known:
                raise ReadError(f"the model reads '{name}', which nothing before it makes", where=here, fix=CHECK)
        _check_attributes(node, here)
        for name in filter(None, node.output):
            if name in known:
                raise ReadError(f"the model makes '{name}' twice", where=here, fix=CHECK)
            known.add(name)
    for value in graph.output:
        if value.name not in known:
            raise ReadError(f"nothing makes the graph output '{value.name}'", where=where, fix=CHECK)


def _check_attributes(node: onnx.NodeProto, here: str) -> None:
    if any(attribute.ref_attr_name for attribute in node.attribute):
        raise ReadError("an attribute refers to one of a function, and stands in none", where=here, fix=CHECK)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor that holds data: initializers, and attributes of nodes, those in bodies too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
            for body in attribute.graphs:
                yield from _tensors(body)


def _check_sizes(tensors: Iterable[TensorProto], where: str) -> None:
    """Stored bytes are as many as type and shape say."""
    for tensor in tensors:
        if any(not 0 <= n <= _LARGEST for n in tensor.dims):
            what = "negative" if min(tensor.dims) < 0 else "impossible"
            raise ReadError(f"'{tensor.name}' has a {what} size: {list(tensor.dims)}", where=where, fix=CHECK)
        if tensor.data_type not in _TYPES:
            raise ReadError(
                f"'{tensor.name}' has type {tensor.data_type}, which ONNX does not have", where=where, fix=CHECK
            )
        if tensor.HasField("segment"):
            raise ReadError(f"'{tensor.name}' is stored in segments, which nothing reads", where=where, fix=CHECK)
        if tensor.HasField("raw_data") and not is_external(tensor):
            if tensor.data_type == TensorProto.STRING:
                raise ReadError(f"'{tensor.name}' holds bytes where its type is text", where=where, fix=CHECK)
            held, needed = len(tensor.raw_data), stored_bytes(tensor)
            if held != needed:
                raise ReadError(
                    f"'{tensor.name}' holds {held} bytes, where its type and shape take {needed}",
                    where=where,
                    fix=CHECK,
                )
        elif not is_external(tensor) and tensor.data_type != TensorProto.UNDEFINED:
            _check_values(tensor, where)


def _check_values(tensor: TensorProto, where: str) -> None:
    """Values that are stored one by one are as many as the shape says."""
    try:
        numpy_helper.to_array(tensor)
    except (ValueError, TypeError, MemoryError) as error:
        raise ReadError(
            f"'{tensor.name}' does not hold as many values as its shape {list(tensor.dims)} says",
            where=f"{where}: {error}",
            fix=CHECK,
        ) from error


def _fetch(
    model: onnx.ModelProto, tensors: list[TensorProto], source: ModelSource, where: str, *, mapped: bool
) -> None:
    """Read the weights that lie beside the model; many of those of the main graph are only located."""
    if not isinstance(source, str | os.PathLike):
        raise ReadError(
            "the model's weights lie in another file, and it is not known where",
            where=where,
            fix="give the path of the model, or load the weights first: onnx.load(path)",
        )
    try:
        for tensor in filter(is_external, tensors):
            locate(tensor, Path(source).parent, Path(source).resolve().parent)
        main = len(model.graph.initializer)
        stay = mapped and sum(stored_bytes(t) for t in tensors[:main] if is_external(t)) > MAPPED_BYTES
        for tensor in filter(is_external, tensors[main if stay else 0 :]):
            _read(tensor)
    except (OSError, ValueError) as error:
        raise ReadError(
            "the model's external weights cannot be read",
            where=f"{where}: {error}",
            fix="keep the .data file beside the .onnx file, under the name that the model gives",
        ) from error


def _read(tensor: TensorProto) -> None:
    """Bring the values of a located tensor into it."""
    values = numpy_helper.from_array(tensor_array(tensor))
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = values.raw_data
