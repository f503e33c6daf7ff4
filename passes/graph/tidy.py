"""What ONNX Runtime puts up with is put right when a model is read: order, names, sizes declared twice."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import ReadError
from .bodies import nodes_inside, read_names, taken_names
from .names import Names

_UNNAMED = "graph"
_LONG = "ai.onnx"
_DENSE_BYTES = 1 << 30  # that a sparse weight may take when it is written out


def tidied(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model, or a copy of it in which this holds; what it computes is the same.

    Nodes stand behind what they read; no two have the same name; the graph has a name; so has every output of a node
    that its operator does not call optional; ONNX's own operators have the empty domain; an initializer that is listed
    as an input is declared as what it is; sparse initializers are dense. Raises ReadError for a sparse one that takes
    more than 1 GiB so.
    """
    order = _order(model.graph)
    if order is None and next(_repairs(model, where), None) is None:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if order is not None:
        del copy.graph.node[:]
        copy.graph.node.extend(model.graph.node[i] for i in order)
    for repair in list(_repairs(copy, where)):
        repair()
    return copy


def with_named_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy, with a name for every output that its operator does not call optional.

    ONNX Runtime 1.31 ends the process (a segmentation fault) where a Split leaves one out.
    """
    if next(_left_out(model), None) is None:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for repair in list(_left_out(copy)):
        repair()
    return copy


def _order(graph: onnx.GraphProto) -> list[int] | None:
    """Indices of the nodes so that each stands behind what it reads, else as before; None where they do, or cannot."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waits = [{maker[name] for name in read_names(node) if name in maker} for node in graph.node]
    if all(other < i for i, others in enumerate(waits) for other in others):
        return None
    readers: dict[int, list[int]] = {}
    for i, others in enumerate(waits):
        for other in others:
            readers.setdefault(other, []).append(i)
    missing = [len(others) for others in waits]
    ready = [i for i, count in enumerate(missing) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers.get(order[-1], ()):
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order if len(order) == len(graph.node) else None  # in a circle: the reader says what nothing makes


def _repairs(model: onnx.ModelProto, where: str) -> Iterator[Callable[[], object]]:
    graph = model.graph
    if not graph.name:
        yield partial(setattr, graph, "name", _UNNAMED)
    yield from _domains(model)
    yield from _node_names(graph)
    yield from _left_out(model)
    yield from _declared(graph)
    for sparse in graph.sparse_initializer:
        yield partial(_write_out, graph, _dense(sparse, where))


def _domains(model: onnx.ModelProto) -> Iterator[Callable[[], object]]:
    """ONNX's own domain has a long name, which ONNX Runtime takes for the empty one, and two imports under either."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        yield from (partial(setattr, node, "domain", "") for node in nodes_inside(nodes) if node.domain == _LONG)
    for imports in (model.opset_import, *(function.opset_import for function in model.functions)):
        if not any(o.domain == "" for o in imports):
            yield from (partial(setattr, o, "domain", "") for o in imports if o.domain == _LONG)


def _node_names(graph: onnx.GraphProto) -> Iterator[Callable[[], object]]:
    names = Names(node.name for node in graph.node)
    seen: set[str] = set()
    for node in graph.node:
        if node.name and node.name in seen:
            yield partial(setattr, node, "name", names.numbered(node.name))
        seen.add(node.name)


def _left_out(model: onnx.ModelProto) -> Iterator[Callable[[], object]]:
    """Exporters leave out the first output of a TopK, or a part of a Split, which have no optional outputs."""
    opsets = {o.domain: o.version for o in model.opset_import}
    names: Names | None = None
    for node in model.graph.node:
        if all(node.output):
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, opsets.get(domain, 1), domain):
            continue
        outputs = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain).outputs
        for position, name in enumerate(node.output):
            formal = outputs[min(position, len(outputs) - 1)]
            if not name and formal.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
                names = names or Names(taken_names(model.graph))
                unread = names.numbered(f"{next(filter(None, node.output), node.op_type)}_unread")
                yield partial(node.output.__setitem__, position, unread)


def _declared(graph: onnx.GraphProto) -> Iterator[Callable[[], object]]:
    """An initializer that is listed as an input, or in value_info, with another type or size: the values count."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        tensor = held.get(value.name)
        if tensor is None:
            continue
        declared = value.type.tensor_type
        sizes = [d.dim_value for d in declared.shape.dim] if declared.HasField("shape") else None
        if declared.elem_type != tensor.data_type or sizes != list(tensor.dims):
            right = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            yield partial(value.type.CopyFrom, right)


def _dense(sparse: onnx.SparseTensorProto, where: str) -> Callable[[], onnx.TensorProto]:
    size = int(np.prod([float(n) for n in sparse.dims])) * 8
    if size > _DENSE_BYTES or any(n < 0 for n in sparse.dims):
        raise ReadError(
            f"the sparse weight '{sparse.values.name}' would take {size / 2**30:.3g} GiB",
            where=f"{where}: its shape is {list(sparse.dims)}",
            fix="prune a model whose weights fit into memory",
        )
    return partial(_scattered, sparse, where)


def _scattered(sparse: onnx.SparseTensorProto, where: str) -> onnx.TensorProto:
    try:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        at = tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, dense.shape)
        dense[at] = values
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise ReadError(
            f"the sparse weight '{sparse.values.name}' is malformed",
            where=f"{where}: {error}",
            fix="onnx.checker.check_model says what else is wrong with the file",
        ) from error
    return numpy_helper.from_array(dense, sparse.values.name)


def _write_out(graph: onnx.GraphProto, make: Callable[[], onnx.TensorProto]) -> None:
    tensor = make()
    graph.initializer.append(tensor)
    kept = [other for other in graph.sparse_initializer if other.values.name != tensor.name]
    kept = [onnx.SparseTensorProto.FromString(other.SerializeToString()) for other in kept]
    del graph.sparse_initializer[:]
    graph.sparse_initializer.extend(kept)
