"""Weights that are computed from constants become constants, and nothing else changes."""

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.pipeline.prune import analyse, prune
from onnx_prune.runtime.folding import fold_weights
from onnx_prune.runtime.session import open_session

STANDARDISED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[6, 3, 1, 1] w1, float[1, 8, 6] w2, float[8] one, float[8] zero, int64[4] s = {8, 6, 1, 1},
     float[2, 8, 1, 1] w3> {
      a = Conv (x, w1)
      n = InstanceNormalization (w2, one, zero)
      w = Reshape (n, s)
      b = Conv (a, w)
      y = Conv (b, w3)
    }
    """


@pytest.fixture
def standardised():
    model = onnx.parser.parse_model(STANDARDISED)
    known = {t.name for t in model.graph.initializer}
    rng = np.random.default_rng(0)
    for value in model.graph.value_info:
        if value.name not in known:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            model.graph.initializer.append(
                numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), value.name)
            )
    del model.graph.value_info[:]
    return model


def run(model, x):
    return open_session(model, optimise=False).run({"x": x})["y"]


def test_a_weight_normalised_by_its_own_statistics_becomes_an_initializer(standardised):
    folded = fold_weights(load(standardised)).source
    assert [n.op_type for n in folded.graph.node] == ["Conv", "Conv", "Conv"]
    assert [t.name for t in folded.graph.initializer] == ["w1", "w3", "w"]
    onnx.checker.check_model(folded, full_check=True)
    x = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(folded, x), run(standardised, x))


def test_channels_that_it_reads_can_go(standardised):
    assert {g.name: g.units for g in analyse(standardised).groups.free} == {"a": 6, "b": 8}
    report = prune(standardised, budget=Budget(macs=0.5), calibration="none", measure=False).report
    assert report.proof < 2e-6


def test_the_source_is_left_alone(standardised):
    before = standardised.SerializeToString(deterministic=True)
    prune(standardised, budget=Budget(macs=0.5), calibration="none", measure=False)
    assert standardised.SerializeToString(deterministic=True) == before


def test_what_somebody_else_reads_stays(standardised):
    shift = helper.make_tensor_value_info("n", onnx.TensorProto.FLOAT, [1, 8, 6])
    standardised.graph.output.append(shift)
    folded = fold_weights(load(standardised)).source
    assert "InstanceNormalization" in [n.op_type for n in folded.graph.node]
    assert {"w1", "w2", "one", "zero", "w3", "w"} == {t.name for t in folded.graph.initializer}


def test_a_stored_or_moved_weight_is_no_reason_to_change_a_graph(standardised):
    del standardised.graph.node[1]
    standardised.graph.node[1].input[0] = "w2"
    graph = load(standardised)
    assert fold_weights(graph) is graph


def test_weights_of_old_models_are_listed_as_inputs():
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["w"], value=helper.make_tensor("v", 1, [1], [0.5])),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    size = numpy_helper.from_array(np.array([2, 3, 1, 1], np.int64), "size")
    ends = [helper.make_tensor_value_info(n, 1, [1, c, 4, 4]) for n, c in (("x", 3), ("y", 2))]
    listed = helper.make_tensor_value_info("size", onnx.TensorProto.INT64, [4])
    graph = helper.make_graph(nodes, "old", [ends[0], listed], ends[1:], [size])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    folded = fold_weights(load(model)).source
    onnx.checker.check_model(folded, full_check=True)
    assert [v.name for v in folded.graph.input] == ["x", "w"]
