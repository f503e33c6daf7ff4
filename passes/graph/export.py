"""A graph back as a ModelProto, with all that the import dropped put back by name."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from .inference import inferred
from .mapped import is_external, is_mapped, locate, tensor_array
from .model import Graph, quiet
from .spill import WEIGHTS, is_small, refer, without_weights

_Held: TypeAlias = np.ndarray | LazyValues  # what a graphsurgeon constant holds
_OPTIONAL_INPUTS = 4  # the IR version since which an initializer need not be listed as an input


def to_model(graph: Graph, folder: Path | None = None) -> onnx.ModelProto:
    """The graph as a ModelProto, with all that the import dropped put back by name.

    folder: the weights are written into a file there, one after another, and the model refers to them.
    """
    with _without_constants(graph.gs) as constants, quiet():
        model = gs.export_onnx(graph.gs, do_type_check=False)
    source = graph.source
    with (folder / WEIGHTS).open("wb") if folder else nullcontext() as sink:
        _fill(model.graph, constants, source.graph, sink)
    if folder:
        for tensor in filter(is_external, model.graph.initializer):
            locate(tensor, folder)
    _restore_model(model, source)
    _restore_nodes(model.graph, source.graph)
    _restore_tensors(model.graph, source.graph)
    if source.ir_version < _OPTIONAL_INPUTS:
        _list_initializers(model.graph)
    return model


def written_nodes(graph: Graph) -> onnx.GraphProto:
    """The nodes as `to_model` writes them, without weights, inputs and outputs."""
    with _without_constants(graph.gs), quiet():
        model = gs.export_onnx(graph.gs, do_type_check=False)
    _restore_nodes(model.graph, graph.source.graph)
    return model.graph


@contextmanager
def _without_constants(graph: gs.Graph) -> Generator[dict[str, _Held]]:
    """Let the constants of a graph have next to no values for a while; what they hold, by name.

    Graphsurgeon would copy each value three times on its way into the message.
    """
    tensors = [t for t in graph.tensors().values() if isinstance(t, gs.Constant) and not _is_sparse(t)]
    held = {tensor.name: tensor._values for tensor in tensors}
    nothing = LazyValues(TensorProto(data_type=TensorProto.FLOAT, dims=[0]))
    for tensor in tensors:
        tensor.values = nothing
    try:
        yield held
    finally:
        for tensor in tensors:
            tensor.values = held[tensor.name]


def _is_sparse(tensor: gs.Constant) -> bool:
    return isinstance(tensor._values, SparseValues)


def _fill(
    graph: onnx.GraphProto, constants: Mapping[str, _Held], source: onnx.GraphProto, sink: BinaryIO | None
) -> None:
    """Put the initializers in: in their old order, new ones at the end, with those that nothing reads."""
    del graph.initializer[:]
    read = {name for node in source.node for name in node.input}
    order = {tensor.name: i for i, tensor in enumerate(source.initializer)}
    unread = {t.name: LazyValues(t) for t in source.initializer if t.name not in read | constants.keys()}
    for name, held in sorted({**constants, **unread}.items(), key=lambda item: order.get(item[0], len(order))):
        tensor = _as_tensor(held, whole=sink is None)
        target = graph.initializer.add()
        if sink is None or is_small(tensor):
            target.CopyFrom(tensor)
        else:
            refer(target, tensor, sink)
        target.name = name


def _as_tensor(held: _Held, *, whole: bool) -> TensorProto:
    """What a constant holds as a message; whole: with its values, wherever they lie."""
    if not isinstance(held, LazyValues):
        return OnnxExporter.export_tensor_proto(gs.Constant("", held))
    tensor = held.tensor
    return numpy_helper.from_array(tensor_array(tensor)) if whole and is_mapped(tensor) else tensor


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
                now.doc_string = attribute.doc_string
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
    """Interface types and value_info verbatim, but for shapes that no longer hold; those of constants are known.

    An initializer that went is no input either, where a model lists them so: it would be a required one.
    """
    held = _constant_sizes(graph)
    read = {name for node in source.node for name in node.input}
    went = {tensor.name for tensor in source.initializer} & read - set(held)
    for before, after in ((source.input, graph.input), (source.output, graph.output)):
        del after[:]
        after.extend(_following(value, held) for value in before if value.name not in went)
    interface = {v.name for v in [*source.input, *source.output]}
    made = {o for node in graph.node for o in node.output} | set(held)
    now = {v.name: _sizes(v) for v in graph.value_info}
    del graph.value_info[:]
    for value in source.value_info:
        if value.name in made - interface:
            graph.value_info.append(_following(value, held))
            if value.name not in held and _sizes(value) not in (None, now.get(value.name)):
                graph.value_info[-1].type.tensor_type.ClearField("shape")


def _list_initializers(graph: onnx.GraphProto) -> None:
    """Initializers that the cut made are inputs too."""
    listed = {value.name for value in graph.input}
    new = [tensor for tensor in graph.initializer if tensor.name not in listed]
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in new)


def _constant_sizes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Name -> dimensions of every initializer and every tensor in a Constant node."""
    nodes = [n for n in graph.node if n.op_type == "Constant" and n.attribute and n.attribute[0].name == "value"]
    held = {node.output[0]: list(node.attribute[0].t.dims) for node in nodes}
    return held | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def _following(value: onnx.ValueInfoProto, held: Mapping[str, list[int]]) -> onnx.ValueInfoProto:
    """The same, with the dimensions of the constant of that name, if it is one and they have changed."""
    if _sizes(value) in (None, held.get(value.name, _sizes(value))):
        return value
    changed = onnx.ValueInfoProto()
    changed.CopyFrom(value)
    if len(_dims(changed)) != len(held[value.name]):  # what was declared was wrong before
        kind = changed.type.tensor_type.elem_type
        changed.type.CopyFrom(helper.make_tensor_type_proto(kind, held[value.name]))
        return changed
    for dim, size in zip(_dims(changed), held[value.name], strict=True):
        dim.dim_value = size
    return changed


def _sizes(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Declared dimensions; None where none are, as for what is no tensor."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in _dims(value)]


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _contradict(first: list[int | str | None] | None, second: list[int | str | None] | None) -> bool:
    """Whether two declarations cannot both hold: of another rank, or of two numbers for one size."""
    if first is None or second is None:
        return False
    pairs = zip(first, second, strict=False)
    return len(first) != len(second) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of its intermediate tensors inferred anew; the weights are not serialised for it.

    An output that was declared of a size that it cannot have gets the one that it has: after a cut, which makes
    computed sizes constant, ONNX may find out what it could not know before.
    """
    skeleton = without_weights(model)
    for value in skeleton.graph.output:  # one that was declared wrongly would be believed of what reads it
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    _correct_declared(model.graph, skeleton)
    found = inferred(skeleton, data_prop=True).graph
    for declared, real in zip(model.graph.output, found.output, strict=True):
        if _contradict(_sizes(declared), _sizes(real)):
            declared.type.CopyFrom(real.type)
    fresh = {v.name: v for v in found.value_info}
    for value in model.graph.value_info:
        known = fresh.pop(value.name, value)
        if _sizes(value) is None:
            value.type.CopyFrom(known.type)
    have = {v.name for v in [*model.graph.input, *model.graph.output]} | {t.name for t in model.graph.initializer}
    model.graph.value_info.extend(value for name, value in fresh.items() if name not in have)
    return model


def _correct_declared(graph: onnx.GraphProto, skeleton: onnx.ModelProto) -> None:
    """Give tensors inside that are declared of a size that they cannot have the one that is inferred without that.

    skeleton: the same model without weights, of which those declarations go.
    """
    if not skeleton.graph.value_info:
        return
    bare = onnx.ModelProto()
    bare.CopyFrom(skeleton)
    del bare.graph.value_info[:]
    real = {v.name: v for v in inferred(bare, data_prop=True).graph.value_info}
    wrong = {v.name for v in graph.value_info if v.name in real and _contradict(_sizes(v), _sizes(real[v.name]))}
    for value in graph.value_info:
        if value.name in wrong:
            value.type.CopyFrom(real[value.name].type)
    for number in reversed([i for i, value in enumerate(skeleton.graph.value_info) if value.name in wrong]):
        del skeleton.graph.value_info[number]
