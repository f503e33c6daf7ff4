"""Weights that the graph computes from constants: they become initializers, which can be cut like any other.

Standardised filters (normalised by their own mean and variance) and weights that a ConstantOfShape makes are such.
What only moves the entries of a weight stays in the graph: labels go through it, and the stored weight is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from .spill import copy_except
from .values import FLOATS, MOVED

_WEIGHTED = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
_BODIES = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_LISTED = 4  # before this IR version an initializer is listed as an input


def computed_weights(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Names of the weights that are computed from constants by more than moving their entries."""
    constant = _constants(graph)
    outputs = {output.name for output in graph.output}
    weights: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in _WEIGHTED and any(name not in constant for name in node.input if name):
            weights.update(dict.fromkeys(n for n in node.input[:2] if not constant.get(n, True) and n not in outputs))
    return tuple(weights)


def computation(model: onnx.ModelProto, names: tuple[str, ...]) -> onnx.ModelProto:
    """A model without inputs whose outputs are these tensors."""
    light = copy_except(model, onnx.ModelProto(), "graph")
    needed, nodes = set(names), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    light.graph.name = model.graph.name
    light.graph.node.extend(reversed(nodes))
    light.graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    light.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return light


def stored_sources(graph: onnx.GraphProto, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Of each computed weight, the stored float tensors that it is computed from, by name."""
    makers = {output: node for node in graph.node for output in node.output}
    stored = {t.name for t in graph.initializer if t.data_type in FLOATS}
    found = {}
    for name in names:
        waiting, seen = [name], dict.fromkeys([name])
        while waiting:
            node = makers.get(waiting.pop())
            new = [read for read in (node.input if node is not None else ()) if read and read not in seen]
            seen |= dict.fromkeys(new)
            waiting += new
        held = (n for n in seen if n in stored or (n in makers and makers[n].op_type == "Constant"))
        found[name] = tuple(sorted(n for n in held if n in stored or _is_float(makers[n])))
    return found


def _is_float(node: onnx.NodeProto) -> bool:
    return any(a.HasField("t") and a.t.data_type in FLOATS for a in node.attribute)


def with_values(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of the model in which these tensors are initializers; what served only them is gone."""
    graph, constant = model.graph, _constants(model.graph)
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        outputs = set(node.output) - set(values)
        if node.output and all(o in constant for o in node.output if o) and not outputs & needed:
            continue
        nodes.append(node)
        needed.update(_reads(node))
    before = {name for node in graph.node for name in _reads(node)}
    gone = before - needed
    folded = copy_except(model, onnx.ModelProto(), "graph")
    for field in ("name", "doc_string"):
        setattr(folded.graph, field, getattr(graph, field))
    folded.graph.node.extend(reversed(nodes))
    folded.graph.initializer.extend(t for t in graph.initializer if t.name not in gone)
    folded.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    for field in ("sparse_initializer", "output", "quantization_annotation", "metadata_props"):
        if field in graph.DESCRIPTOR.fields_by_name:
            getattr(folded.graph, field).extend(getattr(graph, field))
    folded.graph.input.extend(v for v in graph.input if v.name not in gone)
    folded.graph.value_info.extend(v for v in graph.value_info if v.name not in gone | set(values))
    if model.ir_version < _LISTED:
        new = folded.graph.initializer[-len(values) :]
        folded.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in new)
    return folded


def _constants(graph: onnx.GraphProto) -> dict[str, bool]:
    """Tensors that hold the same in every run -> whether they are stored, or stored and only moved."""
    constant = {tensor.name: True for tensor in graph.initializer}
    for node in graph.node:
        if not _is_plain(node) or any(name not in constant for name in node.input if name):
            continue
        moved = node.op_type == "Constant" or (node.op_type in MOVED and constant[node.input[0]])
        constant.update({name: moved for name in node.output if name})
    return constant


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether the node computes the same from the same inputs, and has no body."""
    bodies = any(a.type in _BODIES for a in node.attribute)
    return node.domain in ("", "ai.onnx") and node.op_type not in RANDOM and not bodies


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, the bodies in its attributes included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs) if attribute.type in _BODIES else ():
            for inner in body.node:
                yield from _reads(inner)
            yield from (output.name for output in body.output)
