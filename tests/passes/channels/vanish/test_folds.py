"""Every operator that a constant goes through gives what ONNX Runtime gives, in every opset that has it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_prune.passes.channels.rules.elementwise import NARY, UNARY
from onnx_prune.passes.channels.vanish.folds import FOLDS
from onnx_prune.passes.channels.vanish.take_out import evaluate, normalised
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.model import load
from onnx_prune.runtime.session import open_session

OPSETS = (7, 9, 12, 13, 17, 18, 20, 22)
BOOLEAN = {"And", "Or", "Xor", "Not"}
INTEGER = {"BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "Mod"}
EXTRA = {
    "Cast": {"to": 1},
    "BatchNormalization": {"momentum": 0.8, "epsilon": 1e-3},
    "Transpose": {"perm": [0, 2, 3, 1]},
    "Elu": {"alpha": 0.7},
    "LeakyRelu": {"alpha": 0.2},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
}
COUNT = {"Where": 3, "Sum": 3, "Max": 3, "Min": 3, "Mean": 3, "BatchNormalization": 5, "Clip": 1}
CHECKED = sorted({*UNARY, *NARY, "BatchNormalization", "Transpose", "ReduceMean", "ReduceMax", "ReduceMin", "Clip"})


def operands(op):
    rng = np.random.default_rng(len(op))
    count = COUNT.get(op, 2 if op in NARY else 1)
    arrays = [rng.uniform(0.1, 0.9, (1, 4, 1, 1)).astype(np.float32) for _ in range(count)]
    if op == "BatchNormalization":
        arrays = [arrays[0], *(a.reshape(-1) for a in arrays[1:])]
    if op in BOOLEAN:
        arrays = [a > 0.5 for a in arrays]
    if op in INTEGER:
        arrays = [(1 + 9 * a).astype(np.int32) for a in arrays]
    if op == "Acosh":
        arrays = [a + 1 for a in arrays]
    if op == "Where":
        arrays[0] = arrays[0] > 0.5
    return arrays


@pytest.mark.parametrize("op", CHECKED)
def test_a_constant_goes_through_as_in_onnx_runtime(op):
    arrays = operands(op)
    names = [f"i{i}" for i in range(len(arrays))]
    ran = 0
    for opset in OPSETS:
        node = helper.make_node(op, names, ["y"], **EXTRA.get(op, {}))
        body = helper.make_graph(
            [node],
            "g",
            [],
            [helper.make_empty_tensor_value_info("y")],
            [numpy_helper.from_array(a, n) for n, a in zip(names, arrays, strict=True)],
        )
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        if not onnx.defs.has(op, opset):
            continue
        try:
            (expected,) = open_session(model, optimise=False).run({}).values()
        except ReadError:
            continue
        graph = load(model)
        wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
        found = (
            normalised(graph.gs.nodes[0], wide)
            if op == "BatchNormalization"
            else evaluate(graph, graph.gs.nodes[0], wide)
        )
        np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=2e-6, atol=1e-6)
        ran += 1
    assert ran or op in ("Swish",)


def test_every_row_is_an_operator_of_onnx():
    assert all(onnx.defs.has(op) or op == "Upsample" for op in FOLDS)
