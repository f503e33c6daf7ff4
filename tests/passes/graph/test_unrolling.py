"""Loops of a few rounds, constant branches and known sequences become plain nodes that compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune import inspect
from onnx_prune.passes.graph.unrolling import unrolled
from onnx_prune.pipeline.prune import apply, prune

node, value = helper.make_node, helper.make_tensor_value_info
INT, BOOL = TensorProto.INT64, TensorProto.BOOL


def random(*shape):
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.3).astype(np.float32)


def body(nodes, inputs, outputs, weights=()):
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()]
    shapeless = [value(name, kind, [] if kind in (INT, BOOL) else None) for name, kind in inputs]
    return helper.make_graph(nodes, "body", shapeless, [value(name, kind, None) for name, kind in outputs], held)


PARTS = body(
    [
        node("Gather", ["bounds", "i"], ["from"]),
        node("Add", ["i", "one"], ["j"]),
        node("Gather", ["bounds", "j"], ["to"]),
        node("Unsqueeze", ["from", "first"], ["from1"]),
        node("Unsqueeze", ["to", "first"], ["to1"]),
        node("Slice", ["a", "from1", "to1", "axes"], ["part"]),
        node("SequenceInsert", ["parts", "part"], ["more"]),
        node("Identity", ["go"], ["on"]),
    ],
    [("i", INT), ("go", BOOL), ("parts", 1)],
    [("on", BOOL), ("more", 1)],
    {"one": np.int64(1)},
)
for sequence in (PARTS.input[2], PARTS.output[1]):
    sequence.CopyFrom(helper.make_tensor_sequence_value_info(sequence.name, 1, None))
COUNTED = body(  # torch writes the count as a vector of one
    [node("Slice", ["v", "i", "ends", "axes"], ["w"]), node("Identity", ["go"], ["on"])],
    [("i", INT), ("go", BOOL), ("v", 1)],
    [("on", BOOL), ("w", 1)],
    {"ends": np.array([99])},
)
COUNTED.input[0].CopyFrom(value("i", INT, [1]))
SUMS = body(
    [node("Mul", ["v", "half"], ["w"]), node("Relu", ["w"], ["row"]), node("Identity", ["yes"], ["on"])],
    [("i", INT), ("go", BOOL), ("v", 1)],
    [("on", BOOL), ("w", 1), ("row", 1)],
    {"half": np.float32(0.5)},
)
NESTED = body(
    [
        node("If", ["yes"], ["w"], then_branch=body([node("Relu", ["v"], ["r"])], [], [("r", 1)]),
             else_branch=body([node("Neg", ["v"], ["r"])], [], [("r", 1)])),
        node("Identity", ["go"], ["on"]),
    ],
    [("i", INT), ("go", BOOL), ("v", 1)],
    [("on", BOOL), ("w", 1)],
)  # fmt: skip
# What stands between a (n, 8, 8, 8) and b, of as many channels.
MIDDLES = {
    "a loop that splits": [
        node("SequenceEmpty", [], ["none"]),
        node("Loop", ["two", "yes", "none"], ["parts2"], body=PARTS),
        node("SequenceAt", ["parts2", "zero"], ["p"]),
        node("SequenceAt", ["parts2", "minus"], ["q"]),
        node("Relu", ["q"], ["r"]),
        node("Concat", ["p", "r"], ["b"], axis=1),
    ],
    "a loop whose rounds are stacked": [
        node("Loop", ["two", "yes", "a"], ["c", "rows"], body=SUMS),
        node("ReduceSum", ["rows", "first"], ["d"], keepdims=0),
        node("Add", ["c", "d"], ["b"]),
    ],
    "a loop whose count is a vector": [
        node("Concat", ["a", "a"], ["c"], axis=1),
        node("Loop", ["three", "", "c"], ["d"], body=COUNTED),
        node("Slice", ["d", "zeros", "eight", "axes"], ["b"]),
    ],
    "a branch in a loop": [node("Loop", ["two", "", "a"], ["b"], body=NESTED)],
    "a branch": [
        node("If", ["no"], ["b"], then_branch=body([node("Relu", ["a"], ["r"])], [], [("r", 1)]),
             else_branch=body([node("Neg", ["a"], ["r"]), node("Exp", ["r"], ["s"])], [], [("s", 1)])),
    ],
    "a sequence that is split and joined": [
        node("SplitToSequence", ["a", "sizes"], ["parts"], axis=1),
        node("SequenceAt", ["parts", "zero"], ["p"]),
        node("SequenceInsert", ["parts", "p", "zero"], ["parts3"]),
        node("ConcatFromSequence", ["parts3"], ["j"], axis=1),
        node("Slice", ["j", "sizes1", "far", "axes"], ["b"]),
    ],
    "a sequence of its own": [
        node("Relu", ["a"], ["r"]),
        node("SequenceConstruct", ["a", "r"], ["both"]),
        node("SequenceAt", ["both", "minus"], ["b"]),
    ],
}  # fmt: skip
NUMBERS = {
    "two": np.int64(2), "three": np.int64(3), "zeros": np.array([0]), "eight": np.array([8]),
    "zero": np.int64(0), "minus": np.int64(-1), "yes": np.array(True), "no": np.array(False),
    "bounds": np.array([0, 3, 8]), "first": np.array([0]), "axes": np.array([1]), "sizes": np.array([3, 5]),
    "sizes1": np.array([3]), "far": np.array([99]),
}  # fmt: skip


def network(kind, numbers=()):
    nodes = [node("Conv", ["x", "w0"], ["a"], pads=[1] * 4), *MIDDLES[kind], node("Conv", ["b", "w1"], ["y"])]
    weights = {**NUMBERS, **dict(numbers), "w0": random(8, 3, 3, 3), "w1": random(6, 8, 3, 3)}
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["n", 3, 8, 8])], [value("y", 1, ["n", 6, 6, 6])], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": random(2, 3, 8, 8)})[0]


@pytest.mark.parametrize("kind", MIDDLES)
def test_it_computes_the_same_with_plain_nodes_alone(kind):
    model = network(kind)
    before = model.SerializeToString()
    plain = unrolled(model)
    onnx.checker.check_model(plain)
    assert model.SerializeToString() == before
    assert not {n.op_type for n in plain.graph.node} & {"If", "Loop", "SequenceAt", "SequenceInsert", "SplitToSequence"}
    assert np.array_equal(run(plain), run(model))


@pytest.mark.parametrize("kind", MIDDLES)
def test_the_channels_in_it_are_free_and_the_plan_can_be_applied_again(kind):
    result = prune(network(kind), budget="70%", calibration="none", measure=False)
    assert result.report.macs[1] <= 0.7 * result.report.macs[0]
    again = apply(network(kind), result.plan, measure=False)
    assert np.array_equal(run(again.model), run(result.model))


@pytest.mark.parametrize(
    ("kind", "numbers"), [("a loop that splits", {"two": np.int64(65)}), ("a sequence of its own", {"minus": None})]
)
def test_what_is_not_known_or_too_long_stays(kind, numbers):
    model = network(kind)
    if numbers.get("minus", 0) is None:
        model.graph.node[3].input[1] = "which"
        model.graph.input.append(value("which", INT, []))
    else:
        model = network(kind, numbers)
    assert unrolled(model) is model


def test_a_condition_that_whoever_runs_the_model_may_give_is_no_constant():
    branches = {k: body([node(op, ["x"], ["t"])], [], [("t", 1)]) for k, op in (("then", "Neg"), ("else", "Abs"))}
    chosen = node("If", ["c"], ["y"], then_branch=branches["then"], else_branch=branches["else"])
    held = [numpy_helper.from_array(np.array(True), "c")]
    inputs = [value("x", 1, [4]), value("c", BOOL, [])]
    model = helper.make_model(helper.make_graph([chosen], "g", inputs, [value("y", 1, [4])], held), ir_version=8)
    assert unrolled(model) is model
    del model.graph.input[1]
    assert [n.op_type for n in unrolled(model).graph.node] == ["Neg", "Identity"]


def test_weights_of_a_loop_are_brought_out_once_for_all_rounds():
    once = body(
        [node("MatMul", ["v", "W"], ["w"]), node("Identity", ["go"], ["on"])],
        [("i", INT), ("go", BOOL), ("v", 1)],
        [("on", BOOL), ("w", 1)],
        {"W": random(4, 4)},
    )
    held = [numpy_helper.from_array(np.asarray(a), n) for n, a in {"n": np.int64(5), "yes": np.array(True)}.items()]
    loop = node("Loop", ["n", "yes", "x"], ["y"], body=once)
    graph = helper.make_graph([loop], "g", [value("x", 1, [2, 4])], [value("y", 1, [2, 4])], held)
    found = unrolled(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    assert [n.op_type for n in found.graph.node].count("MatMul") == 5
    assert [list(t.dims) for t in found.graph.initializer].count([4, 4]) == 1


@pytest.mark.parametrize(("size", "free"), [(4, True), ("n", False)])
def test_a_branch_that_sizes_decide_is_taken_where_no_size_is_free(size, free):
    """torch's squeeze of an axis that may be one."""
    squeezed = body([node("Squeeze", ["h", "axis"], ["t"])], [], [("t", 1)])
    kept = body([node("Identity", ["h"], ["t"])], [], [("t", 1)])
    nodes = [
        node("MatMul", ["x", "w0"], ["h"]),
        node("Shape", ["h"], ["s"]),
        node("Gather", ["s", "axis0"], ["d"]),
        node("Equal", ["d", "one"], ["is"]),
        node("If", ["is"], ["z"], then_branch=squeezed, else_branch=kept),
        node("Relu", ["z"], ["r"]),
        node("MatMul", ["r", "w1"], ["y"]),
    ]
    held = {"w0": random(6, 16), "w1": random(16, 5), "axis": np.array([0]), "axis0": np.int64(0), "one": np.int64(1)}
    weights = [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, [size, 6])], [value("y", 1, None)], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    if free:
        result = prune(model, budget="50%", criterion="l2", calibration="none", measure=False)
        assert result.report.macs[1] <= result.report.macs[0] / 2
        assert "If" not in {n.op_type for n in result.model.graph.node}
    else:
        assert [group.units for group in inspect(model).groups.free] == []
