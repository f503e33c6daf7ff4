"""The model in and out: a graph to read and cut, and the envelope that onnx-graphsurgeon does not carry.

`load` reads a path, bytes or a ModelProto; `to_model` writes the graph back and restores what the import drops
(metadata, doc strings, quantisation notes, unused initializers, the declared types of the interface);
`save` makes the file appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from .errors import ReadError, UsageError

PROTOBUF_LIMIT = 2**31 - 2**20  # bytes; protobuf refuses 2 GiB, a margin for the graph itself
EXTERNAL_THRESHOLD = 1024  # bytes; smaller tensors stay inside the model file


@dataclass(slots=True)
class Graph:
    """A model as a graph that can be read and cut.

    gs: the nodes and tensors; source: the ModelProto it came from, kept for what gs drops and never changed;
    external: whether the source kept its weights in a file beside it.
    """

    gs: gs.Graph
    source: onnx.ModelProto
    external: bool = False

    @property
    def opset(self) -> int:
        return self.gs.opset

    def copy(self) -> Graph:
        """A graph whose nodes and tensors can be changed; the values of the weights are shared, not copied."""
        return Graph(self.gs.copy(), self.source, self.external)

    def sha256(self) -> str:
        """Digest of the graph: operators, attributes, names and shapes, not the weights' values."""
        digest = hashlib.sha256()
        digest.update(repr([(o.domain, o.version) for o in self.source.opset_import]).encode())
        for node in self.source.graph.node:
            digest.update(repr((node.domain, node.op_type, list(node.input), list(node.output))).encode())
            for attribute in sorted(node.attribute, key=lambda a: a.name):
                if attribute.type == onnx.AttributeProto.TENSOR:
                    digest.update(repr((attribute.name, attribute.t.data_type, list(attribute.t.dims))).encode())
                else:
                    digest.update(attribute.SerializeToString(deterministic=True))
        for tensor in self.source.graph.initializer:
            digest.update(repr((tensor.name, tensor.data_type, list(tensor.dims))).encode())
        return digest.hexdigest()


def load(source: str | os.PathLike[str] | bytes | onnx.ModelProto | Graph) -> Graph:
    """Read a model from a path, serialised bytes or a ModelProto. Functions of the model are inlined.

    Raises ReadError where it is no ONNX model, or has an opset below 7.
    """
    if isinstance(source, Graph):
        return source
    model, external = _read(source)
    if not model.graph.node and not model.graph.output:
        raise ReadError("this is not an ONNX model: its graph is empty", where=_where(source))
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is not None and opset < 7:
        raise ReadError(
            f"opset {opset} is too old: 7 is the oldest that can be read",
            where=_where(source),
            fix="convert the model with onnx.version_converter, or export it again",
        )
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    with _quiet():
        graph = gs.import_onnx(model)
    return Graph(graph, model, external)


def _read(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    if isinstance(source, onnx.ModelProto):
        return source, False
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source), False
        model = onnx.load(source, load_external_data=False)
    except FileNotFoundError:
        raise ReadError("the model file does not exist", where=_where(source)) from None
    except IsADirectoryError:
        raise ReadError("this is a folder, not a model file", where=_where(source)) from None
    except Exception as error:  # protobuf's DecodeError has no public base that onnx re-exports
        raise ReadError(f"the file cannot be read as ONNX ({type(error).__name__})", where=_where(source)) from error
    external = any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    if external:
        try:
            onnx.load_external_data_for_model(model, str(Path(source).parent))
        except (OSError, onnx.checker.ValidationError) as error:
            raise ReadError(
                "the model's external weights cannot be read",
                where=f"{_where(source)}: {error}",
                fix="keep the .data file beside the .onnx file, under the name that the model gives",
            ) from error
    return model, external


def _where(source: object) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__} object"


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Graphsurgeon's logger writes warnings about valid models (no name, bfloat16) on standard output."""
    from onnx_graphsurgeon.logger import G_LOGGER

    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.ERROR
    try:
        yield
    finally:
        G_LOGGER.severity = before


def constant_values(tensor: gs.Tensor) -> np.ndarray | None:
    """The array behind an initializer or a Constant node's output, without keeping a second copy; None otherwise.

    Sparse constants are None: nothing here cuts them.
    """
    if isinstance(tensor, gs.Constant):
        return _array(tensor)
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        return _node_value(tensor.inputs[0])
    return None


def _array(constant: gs.Constant) -> np.ndarray | None:
    held = constant._values
    if isinstance(held, gs.ir.tensor.SparseValues):
        return None
    return numpy_helper.to_array(held.tensor) if isinstance(held, gs.ir.tensor.LazyValues) else held


def _node_value(node: gs.Node) -> np.ndarray | None:
    for key, value in node.attrs.items():
        if key == "value" and isinstance(value, gs.Constant):
            return _array(value)
        if key in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if key in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def set_constant(tensor: gs.Tensor, values: np.ndarray) -> None:
    """Replace the values behind an initializer or a Constant node's output; shape may change, dtype may not."""
    if isinstance(tensor, gs.Constant):
        tensor.values = _held(values)
    else:
        node = tensor.inputs[0]
        assert node.op == "Constant", f"{tensor.name} is not a constant"
        node.attrs.clear()
        node.attrs["value"] = make_constant(f"{tensor.name}_value", values)


def make_constant(name: str, values: np.ndarray) -> gs.Constant:
    """A new constant of any type that ONNX has."""
    return gs.Constant(name, _held(values))


def _held(values: np.ndarray) -> np.ndarray | gs.ir.tensor.LazyValues:
    """Graphsurgeon writes types that numpy lacks byte by byte, four-bit ones too: hold those as ONNX does."""
    return gs.ir.tensor.LazyValues(numpy_helper.from_array(values)) if values.dtype.kind == "V" else values


def to_model(graph: Graph) -> onnx.ModelProto:
    """The graph as a ModelProto, with all that the import dropped put back by name."""
    with _quiet():
        model = gs.export_onnx(graph.gs, do_type_check=False)
    source = graph.source
    _restore_model(model, source)
    _restore_nodes(model.graph, source.graph)
    _restore_tensors(model.graph, source.graph)
    return model


def _restore_model(model: onnx.ModelProto, source: onnx.ModelProto) -> None:
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string", "ir_version"):
        if source.HasField(field):
            setattr(model, field, getattr(source, field))
        else:
            model.ClearField(field)
    for field in ("opset_import", "metadata_props", "training_info", "configuration"):
        if field in source.DESCRIPTOR.fields_by_name:
            model.ClearField(field)
            getattr(model, field).extend(getattr(source, field))
    for field in ("quantization_annotation", "metadata_props"):
        if field in source.graph.DESCRIPTOR.fields_by_name:
            model.graph.ClearField(field)
            getattr(model.graph, field).extend(getattr(source.graph, field))
    if source.graph.HasField("doc_string"):
        model.graph.doc_string = source.graph.doc_string
    else:
        model.graph.ClearField("doc_string")


def _node_key(node: onnx.NodeProto) -> tuple[str, str]:
    return node.op_type, next((o for o in node.output if o), "")


def _restore_nodes(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    original = {_node_key(node): node for node in source.node}
    for node in graph.node:
        before = original.get(_node_key(node))
        if before is None:
            continue
        for field in ("doc_string", "overload"):
            if before.HasField(field):
                setattr(node, field, getattr(before, field))
        for field in ("metadata_props", "device_configurations"):
            if field in before.DESCRIPTOR.fields_by_name:
                getattr(node, field).extend(getattr(before, field))
        kept = {a.name: a for a in node.attribute}
        attributes = []
        for attribute in before.attribute:  # the original wherever the cut left the value alone: doc strings, order
            now = kept.pop(attribute.name, None)
            if (now is None and attribute.type == onnx.AttributeProto.TENSORS) or (
                now is not None and _same(now, attribute)
            ):
                attributes.append(attribute)
            elif now is not None:
                attributes.append(now)
        attributes.extend(kept.values())
        copies = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in attributes]
        del node.attribute[:]
        node.attribute.extend(copies)


def _same(now: onnx.AttributeProto, before: onnx.AttributeProto) -> bool:
    """Whether the exporter wrote the attribute unchanged (its type, and its value in the type's field)."""
    if now.type != before.type:
        return not now.ints and not before.ints and now.type in (0, before.type)
    if now.type == onnx.AttributeProto.TENSOR:
        return now.t.dims == before.t.dims and np.array_equal(
            numpy_helper.to_array(now.t), numpy_helper.to_array(before.t)
        )
    if now.type == onnx.AttributeProto.GRAPH:
        return True  # nothing of ours changes a body
    return (now.i, now.f, now.s, list(now.ints), list(now.floats), list(now.strings)) == (
        before.i,
        before.f,
        before.s,
        list(before.ints),
        list(before.floats),
        list(before.strings),
    )


def _restore_tensors(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Interface types verbatim, initializers in their old order with the unused ones, value_info that still holds."""
    now = {t.name: t for t in graph.initializer}
    read = {name for node in source.node for name in node.input}
    order = {t.name: i for i, t in enumerate(source.initializer)}
    if [t.name for t in graph.initializer] != list(order):
        unread = [t for t in source.initializer if t.name not in read and t.name not in now]
        tensors = sorted([*now.values(), *unread], key=lambda t: order.get(t.name, len(order)))
        copies = [onnx.TensorProto.FromString(t.SerializeToString()) for t in tensors]
        del graph.initializer[:]
        graph.initializer.extend(copies)
        now = {t.name: t for t in graph.initializer}
    for before, after in ((source.input, graph.input), (source.output, graph.output)):
        del after[:]
        for value in before:
            tensor = now.get(value.name)  # old models list initializers as inputs too: these follow the cut
            cut = tensor is not None and list(tensor.dims) != [d.dim_value for d in _dims(value)]
            after.append(_typed(tensor) if cut and tensor is not None else value)
    interface = {v.name for v in [*source.input, *source.output]}
    made = {o for node in graph.node for o in node.output}
    infos = {v.name: v for v in graph.value_info}
    del graph.value_info[:]
    for value in source.value_info:
        known = infos.get(value.name)
        if value.name in made - interface and (known is None or known.type == value.type or not _is_plain(value)):
            graph.value_info.append(value)


def _typed(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _is_plain(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type")


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of its intermediate tensors inferred anew; the weights are not serialised for it."""
    skeleton = without_weights(model)
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    have = {v.name for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    have |= {t.name for t in model.graph.initializer}
    model.graph.value_info.extend(v for v in inferred.graph.value_info if v.name not in have)
    return model


def without_weights(model: onnx.ModelProto, above: int = 1024) -> onnx.ModelProto:
    """A copy in which initializers of more than `above` elements became inputs of the same type: light to infer on."""
    skeleton = onnx.ModelProto()
    skeleton.ir_version = model.ir_version
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph, source = skeleton.graph, model.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    listed = {v.name for v in source.input}
    for tensor in source.initializer:
        if int(np.prod(tensor.dims)) <= above:
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    graph.sparse_initializer.extend(source.sparse_initializer)
    return skeleton


def save(model: onnx.ModelProto, path: str | os.PathLike[str], *, external: bool = False) -> Path:
    """Check the model and write it so that the file appears whole or not at all. Returns the path.

    external: write the weights to `<name>.data` beside it, as for every model that protobuf cannot hold (2 GiB).
    Raises UsageError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError("the output folder does not exist", where=str(path.parent), fix="make it first")
    external = external or model.ByteSize() > PROTOBUF_LIMIT
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            file = Path(folder) / path.name
            if external:
                onnx.save(
                    model,
                    file,
                    save_as_external_data=True,
                    location=f"{path.name}.data",
                    size_threshold=EXTERNAL_THRESHOLD,
                )
            else:
                file.write_bytes(model.SerializeToString())
            onnx.checker.check_model(file, full_check=True)
            for written in sorted(Path(folder).iterdir(), key=lambda p: p == file):  # the weights first, the model last
                _publish(written, path.parent / written.name)
    except OSError as error:
        raise UsageError(f"the output cannot be written ({error.strerror})", where=str(path)) from error
    return path


def _publish(file: Path, target: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
    file.replace(target)
