"""What several tests of the passes start from: groups of a model, and the rules' sample graphs as runnable models."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import real_inputs, tensor_facts
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.shapes import tensor_shapes


def _groups_of(model, sizes=None, inexact=False):
    """The groups; shapes that inference does not find (com.microsoft's operators) are those of a run."""
    graph = load(model)
    facts = tensor_facts(graph, sizes)
    if facts.unknown and sizes is None:
        facts = tensor_facts(graph, shown=tensor_shapes(model, _random_feeds(model, batch=1)))
    return channel_groups(label_channels(graph, facts, inexact=inexact))


def _parse(text, seed=0, double=False):
    """A model from ONNX text; initializers that the text declares without values are drawn at random.

    What it declares of a node's output stays a declaration.
    """
    model = onnx.parser.parse_model(text)
    known = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
    known |= {o for n in model.graph.node for o in n.output}
    rng = np.random.default_rng(seed)
    for value in model.graph.value_info:
        if value.name not in known:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            model.graph.initializer.append(numpy_helper.from_array(_draw(rng, shape, dtype), value.name))
    made = {o for n in model.graph.node for o in n.output}
    declared = [value for value in model.graph.value_info if value.name in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(declared)
    return _to_double(model) if double else model


def _draw(rng, shape, dtype):
    if np.issubdtype(dtype, np.integer):  # 7 bits: where the CPU has no VNNI, ONNX Runtime's sums of 8 bits saturate
        low = 0 if np.issubdtype(dtype, np.unsignedinteger) else -60
        return rng.integers(low, low + 120, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _to_double(model):
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64)))
    return model


def _random_feeds(model, seed=1, batch=2):
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in real_inputs(model.graph):
        shape = [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def _reference(model, feeds):
    """The outputs in the reference evaluator, which computes in the model's own types."""
    return ReferenceEvaluator(model).run(None, feeds)


def _ort(model, feeds):
    """The outputs in ONNX Runtime, as the graph is written."""
    return list(open_session(model, optimise=False).run(feeds).values())


def _difference(first, second):
    """Largest difference over the outputs, relative to the second's largest value."""
    return max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)) if a.shape == b.shape else np.inf
        for a, b in zip(first, second, strict=True)
        if a.size
    )


@pytest.fixture(scope="session")
def groups_of():
    """Model -> its channel groups."""
    return _groups_of


@pytest.fixture(scope="session")
def graphs():
    """Functions on small graphs: parse, groups_of, random_feeds, reference, ort, difference."""
    return SimpleNamespace(
        parse=_parse,
        groups_of=_groups_of,
        random_feeds=_random_feeds,
        reference=_reference,
        ort=_ort,
        difference=_difference,
    )
