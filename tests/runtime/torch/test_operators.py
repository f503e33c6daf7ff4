"""Every operator in torch against ONNX Runtime, or the reference evaluator where that lacks it."""

import re

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_prune.passes.channels.rules import rules
from onnx_prune.passes.errors import ReadError
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.torch.graph_module import GraphModule
from onnx_prune.runtime.torch.operators import operators

from .operator_cases import CASES

IR_VERSION = {7: 3, 9: 4, 10: 5, 11: 6, 17: 8, 20: 9, 23: 11, 24: 12}
INTEGER_ONLY = ("DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger")  # nothing to differentiate
SAMPLES = {
    f"{rule.op}: {name}": text
    for rule in rules().values()
    for name, text in rule.samples.items()
    if rule.op not in INTEGER_ONLY
}


def graph_text(case):
    opset, body = re.fullmatch(r"(?:(\d+) )?(.*)", case, re.DOTALL).groups()
    lines, _, stored = body.partition("|")
    opset = int(opset or 20)
    return f"""
    <ir_version: {IR_VERSION[opset]}, opset_import: ["": {opset}, "com.microsoft": 1]>
    g (float[2, 6, 5, 5] x) => (float y) <{stored.strip()}> {{ {lines.strip().replace("; ", chr(10))} }}
    """


def drawn(text, seed=0):
    """The model, with initializers that the text declares without values drawn at random."""
    model = onnx.parser.parse_model(text)
    known = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
    known |= {o for n in model.graph.node for o in n.output}
    rng = np.random.default_rng(seed)
    for value in [v for v in model.graph.value_info if v.name not in known]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        low = 0 if np.issubdtype(kind, np.unsignedinteger) else -60
        values = rng.integers(low, low + 120, shape) if np.issubdtype(kind, np.integer) else rng.normal(size=shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(kind), value.name))
        model.graph.value_info.remove(value)
    if model.ir_version < 4:
        listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer]
        model.graph.input.extend(listed)
    return model


def feeds_of(model):
    rng = np.random.default_rng(1)
    stored = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in stored]
    shapes = {v.name: [d.dim_value or 2 for d in v.type.tensor_type.shape.dim] for v in inputs}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def expected(model, feeds):
    try:
        return list(open_session(model, device="cpu", optimise=False).run(feeds).values())
    except ReadError:
        return ReferenceEvaluator(model).run(None, feeds)


def computed(model, feeds):
    module = GraphModule(model).eval()
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(feeds[name]) for name in module.input_names))
    return [tensor.numpy() for tensor in outputs]


def assert_same(model, tolerance=2e-6):
    feeds = feeds_of(model)
    for mine, theirs in zip(computed(model, feeds), expected(model, feeds), strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        finite = np.isfinite(theirs)
        assert np.array_equal(mine[~finite], theirs[~finite], equal_nan=True)
        assert np.abs(mine[finite] - theirs[finite]).max(initial=0) <= tolerance * np.abs(theirs[finite]).max(
            initial=1e-9
        )


@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_what_onnx_runtime_computes(case):
    assert_same(drawn(graph_text(case)))


@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES.keys())
def test_the_rules_samples_compute_what_onnx_runtime_computes(text):
    assert_same(drawn(text))


def test_every_operator_is_compared():
    models = [onnx.parser.parse_model(text) for text in (*map(graph_text, CASES), *SAMPLES.values())]
    met = {("" if n.domain == "ai.onnx" else n.domain, n.op_type) for m in models for n in m.graph.node}
    assert sorted(set(operators()) - met) == []
