"""Facts about tensors that hold for one set of input sizes: concrete shapes, and the values of small integer tensors.

ONNX shape inference with data propagation answers most of it at once. Where it stops (a Reshape whose target is
computed, an Expand), the node is inferred alone with the values that `values.fold` found. What is still unknown needs
one run of the model: `runtime/` provides it as `shown`.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from ..errors import ReadError
from .inference import inferred
from .model import Graph, constant_values
from .spill import without_weights
from .values import FLOATS, FOLDABLE, LIMIT, fold

Shape = tuple[int, ...]
MOST_ELEMENTS = 1 << 33  # of a tensor: 32 GiB in float32
_BY_ROUNDS = frozenset({"Loop", "Scan", "SequenceMap"})  # what they make depends on more than sizes
MOST_ENTRIES = 1 << 27  # of an axis: its labels take 1 GiB


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the tensors of a graph, for one set of input sizes.

    shapes: tensor -> its shape
    values: tensor -> its numbers, where they follow from sizes and constants
    unknown: tensors whose shape is not known
    dynamic: whether an input has a free dimension, so that this holds for one choice of it only
    dtypes: tensor -> its type, as in onnx.TensorProto
    fixed: tensor -> of each axis, whether its size is the same for all inputs; where an input has a free dimension
    """

    shapes: dict[str, Shape]
    values: dict[str, np.ndarray]
    unknown: tuple[str, ...]
    dynamic: bool
    dtypes: dict[str, int] = field(default_factory=dict)
    fixed: dict[str, tuple[bool, ...]] = field(default_factory=dict)

    def varies(self, name: str, axis: int) -> bool:
        """Whether the size of that axis may be another one for another input."""
        fixed = self.fixed.get(name, ())
        return self.dynamic and not (axis < len(fixed) and fixed[axis])


def tensor_facts(
    graph: Graph, sizes: Mapping[str, Shape] | None = None, shown: Mapping[str, Shape] | None = None
) -> Facts:
    """Infer shapes and shape arithmetic.

    sizes: concrete shapes of the graph inputs; free dimensions default to 1
    shown: shapes that a run of the model has shown
    Raises ReadError for a tensor of more than MOST_ELEMENTS elements, or MOST_ENTRIES along one axis.
    """
    dynamic, model = _concrete(graph, sizes or {})
    found = inferred(model, data_prop=True)
    shapes: dict[str, Shape] = {}
    types: dict[str, onnx.TypeProto] = {}
    for value in [*found.graph.input, *found.graph.value_info, *found.graph.output]:
        types[value.name] = value.type
        shape = static_shape(value.type)
        if shape is not None:
            shapes[value.name] = shape
    for name, shape in (shown or {}).items():
        shapes[name] = shape
        if name in types and types[name].HasField("tensor_type"):
            types[name] = helper.make_tensor_type_proto(types[name].tensor_type.elem_type, list(shape))
    values: dict[str, np.ndarray] = {}
    for tensor in graph.source.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    sweep = _Sweep(graph, shapes, types, values)
    if not dynamic:
        sweep.declared = {v.name: v.type for v in [*graph.source.graph.value_info, *graph.source.graph.output]}
    for node, proto in zip(graph.gs.nodes, graph.source.graph.node, strict=True):
        sweep.visit(node, proto)
    check_bounds(graph.source.graph.name, shapes)
    unknown = tuple(o.name for n in graph.gs.nodes for o in n.outputs if o.name and o.name not in shapes)
    dtypes = {n: t.tensor_type.elem_type for n, t in types.items() if t.HasField("tensor_type")}
    return Facts(shapes, values, unknown, dynamic, dtypes, _fixed(graph) if dynamic else {})


def _fixed(graph: Graph) -> dict[str, tuple[bool, ...]]:
    """Of each tensor's axes, whether ONNX infers a number for its size while the inputs keep their free dimensions.

    What is declared of tensors inside, which may be of one size only, does not count.
    """
    model = without_weights(graph.source)
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for value in real_inputs(model.graph):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.ClearField("dim_value")
    found = inferred(model, data_prop=True).graph
    return {
        value.name: tuple(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
        for value in [*found.input, *found.value_info]
    }


def sizes_fit(graph: Graph, facts: Facts) -> bool:
    """Whether sizes alone say that the graph runs: all are known, and no node asks for others than it reads.

    Not told where numbers may be indices or count rounds: inputs that are no floats, loops, operators without a schema.
    What ONNX's inference does not look at is compared here: elements of a Reshape, the inner size of a Gemm, channels.
    """
    if facts.unknown or any(facts.dtypes.get(name) not in FLOATS for name in input_shapes(graph)):
        return False
    return all(_fits(node, facts.shapes) for node in graph.gs.nodes)


def _fits(node: gs.Node, shapes: Mapping[str, Shape]) -> bool:
    if node.domain not in (None, "", "ai.onnx") or node.op in _BY_ROUNDS:
        return False
    if node.op not in ("Reshape", "Gemm", "Conv", "ConvTranspose"):
        return True
    data, other = (shapes.get(tensor.name, ()) for tensor in node.inputs[:2])
    if node.op == "Reshape":
        return math.prod(data) == math.prod(shapes[node.outputs[0].name])
    if node.op == "Gemm":
        return len(data) == len(other) == 2 and (
            data[0 if node.attrs.get("transA") else 1] == other[1 if node.attrs.get("transB") else 0]
        )
    inner = other[1] * node.attrs.get("group", 1) if node.op == "Conv" else other[0]
    return data[1] == inner


def check_bounds(model: str, shapes: Mapping[str, Shape]) -> None:
    """Raise ReadError for a tensor that nothing could hold, before anything runs."""
    for name, shape in shapes.items():
        if math.prod(shape) > MOST_ELEMENTS or max(shape, default=0) > MOST_ENTRIES:
            raise ReadError(
                f"the model asks for a tensor of {math.prod(shape):.3g} elements",
                where=f"{model}: '{name}' has the shape {list(shape)}",
                fix="prune a model of smaller inputs, or correct the sizes that it is given (--size-of)",
            )


def input_shapes(graph: Graph) -> dict[str, tuple[int | str | None, ...]]:
    """Name -> declared dimensions of each real input (initializers that are listed as inputs are none)."""
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in value.type.tensor_type.shape.dim
        )
        for value in real_inputs(graph.source.graph)
    }


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    initializers = {t.name for t in graph.initializer}
    return [v for v in graph.input if v.name not in initializers]


def _concrete(graph: Graph, sizes: Mapping[str, Shape]) -> tuple[bool, onnx.ModelProto]:
    """A light copy whose inputs have concrete sizes and whose other declared shapes, now stale, are dropped."""
    model = without_weights(graph.source)
    dynamic = False
    del model.graph.value_info[:]
    for value in real_inputs(graph.source.graph):
        target = next(v for v in model.graph.input if v.name == value.name)
        for axis, dim in enumerate(target.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") or dim.dim_value <= 0:
                dynamic = True
                dim.dim_value = sizes[value.name][axis] if value.name in sizes else 1
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return dynamic, model


def static_shape(type_proto: onnx.TypeProto) -> Shape | None:
    if not type_proto.HasField("tensor_type") or not type_proto.tensor_type.HasField("shape"):
        return None
    dims = type_proto.tensor_type.shape.dim
    stated = all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims)
    return tuple(d.dim_value for d in dims) if stated else None


class _Sweep:
    """One pass in topological order that fills shapes and values."""

    def __init__(
        self,
        graph: Graph,
        shapes: MutableMapping[str, Shape],
        types: MutableMapping[str, onnx.TypeProto],
        values: MutableMapping[str, np.ndarray],
    ) -> None:
        self.graph, self.shapes, self.types, self.values = graph, shapes, types, values
        self.opsets = list(graph.source.opset_import)
        self.version = {o.domain: o.version for o in self.opsets}
        self.declared: dict[str, onnx.TypeProto] = {}  # what the model itself says, for operators nobody else knows

    def visit(self, node: gs.Node, proto: onnx.NodeProto) -> None:
        if node.op == "Constant" and not node.domain:
            self._constant(node.outputs[0])
            return
        if any(o.name and o.name not in self.shapes for o in node.outputs):
            if node.op == "If" and not node.domain:
                self._branch(node, proto)
            else:
                self._infer(node, proto)
            self._believe(node)
        if node.domain not in (None, "", "ai.onnx"):
            return
        if node.op in ("Shape", "Size") and node.inputs[0].name in self.shapes:
            self._shape(node)
        elif node.op in FOLDABLE:
            self._fold(node)

    def _branch(self, node: gs.Node, proto: onnx.NodeProto) -> None:
        """Shapes of what an If gives whose condition is known: those of the branch that is taken at these sizes."""
        taken = self.value(node.inputs[0])
        if taken is None or taken.size != 1:
            return
        word = "then_branch" if taken.all() else "else_branch"
        body, source = node.attrs[word], next(a.g for a in proto.attribute if a.name == word)
        inner = _Sweep(self.graph, ChainMap({}, self.shapes), ChainMap({}, self.types), ChainMap({}, self.values))
        for tensor in source.initializer:
            inner.shapes[tensor.name] = tuple(tensor.dims)
            inner.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        for own, written in zip(body.nodes, source.node, strict=True):
            inner.visit(own, written)
        for tensor, made in zip(node.outputs, source.output, strict=False):
            if made.name in inner.shapes and made.name in inner.types:
                self.shapes[tensor.name], self.types[tensor.name] = inner.shapes[made.name], inner.types[made.name]

    def _believe(self, node: gs.Node) -> None:
        for tensor in node.outputs:
            if tensor.name not in self.shapes and tensor.name in self.declared:
                shape = static_shape(self.declared[tensor.name])
                if shape is not None:
                    self.shapes[tensor.name], self.types[tensor.name] = shape, self.declared[tensor.name]

    def _constant(self, tensor: gs.Tensor) -> None:
        array = constant_values(tensor)
        if array is not None:
            self.shapes[tensor.name] = array.shape
            self.types[tensor.name] = helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
            )

    def _shape(self, node: gs.Node) -> None:
        shape = np.asarray(self.shapes[node.inputs[0].name], np.int64)
        if node.op == "Size":
            self._set(node.outputs[0].name, np.asarray(np.prod(shape)))
        else:
            self._set(node.outputs[0].name, shape[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))])

    def _fold(self, node: gs.Node) -> None:
        arguments: list[np.ndarray | None] = []
        for tensor in node.inputs:
            value = self.value(tensor)
            if value is None and tensor.name:
                return
            arguments.append(value)
        first = arguments[0] if arguments else None
        if first is None or sum(a.size for a in arguments if a is not None) > LIMIT or self._grows(node):
            return
        if np.issubdtype(first.dtype, np.floating) and first.size > 64:
            return  # a weight on its way, not shape arithmetic
        outputs = fold(node.op, node.attrs, arguments)
        if outputs is not None:
            for tensor, value in zip(node.outputs, outputs, strict=False):
                self._set(tensor.name, value)

    def _grows(self, node: gs.Node) -> bool:
        return any(int(np.prod(self.shapes.get(o.name, ()))) > LIMIT for o in node.outputs)

    def _set(self, name: str, value: np.ndarray) -> None:
        value = self.values[name] = np.asarray(value)
        if name not in self.shapes:
            self.shapes[name] = value.shape
            self.types[name] = helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
            )

    def value(self, tensor: gs.Tensor) -> np.ndarray | None:
        """The numbers of a tensor: folded, or a constant of the model."""
        if tensor.name in self.values:
            return self.values[tensor.name]
        small = int(np.prod(self.shapes.get(tensor.name, (LIMIT + 1,)))) <= LIMIT
        return constant_values(tensor) if small else None

    def _infer(self, node: gs.Node, proto: onnx.NodeProto) -> None:
        domain = "" if node.domain in (None, "ai.onnx") else node.domain
        if not onnx.defs.has(proto.op_type, domain) or any(
            a.type == onnx.AttributeProto.GRAPH for a in proto.attribute
        ):
            return
        types, data = {}, {}
        for tensor in node.inputs:
            if not tensor.name:
                continue
            if tensor.name not in self.types:
                return
            types[tensor.name] = self.types[tensor.name]
            value = self.value(tensor)
            if value is not None and value.size <= 1024:
                data[tensor.name] = numpy_helper.from_array(value, tensor.name)
        try:
            schema = onnx.defs.get_schema(proto.op_type, self.version.get(domain, 1), domain)
            found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=self.opsets)
        except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, onnx.checker.ValidationError, RuntimeError):
            return
        for name, type_proto in found.items():
            self.types[name] = type_proto
            shape = static_shape(type_proto)
            if shape is not None:
                self.shapes[name] = shape
