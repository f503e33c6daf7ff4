"""Sizes and numbers that inputs leave open are taken from the weights and constants that meet them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_prune.pipeline.prune import inspect, prune
from onnx_prune.runtime.data.needed_sizes import known_numbers, needed_sizes

node, value = helper.make_node, helper.make_tensor_value_info


def random(*shape):
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.3).astype(np.float32)


def model_of(nodes, inputs, outputs, weights):
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [value(name, 1, None) for name in outputs], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def recurrent(kind, states, *, rate=True):
    """x [n, t, 10] -> dense, recurrent with states of free sizes, dense, times a table's entry for the sample rate."""
    gates = {"LSTM": 4, "GRU": 3}[kind]
    nodes = [
        node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        node("MatMul", ["xt", "w0"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node(kind, ["b", "W", "R", "", "", *states], ["s", "hn"], hidden_size=12),
        node("Squeeze", ["s", "one"], ["q"]),
        node("MatMul", ["q", "o"], ["l"]),
    ]
    weights = {"w0": random(10, 24), "W": random(1, 12 * gates, 24), "R": random(1, 12 * gates, 12), "o": random(12, 3)}
    weights |= {"one": np.array([1])}
    inputs = [value("x", 1, [None, None, None]), *(value(s, 1, [None, None, None]) for s in states)]
    if rate:
        nodes += [
            node("Div", ["sr", "k8"], ["d"]),
            node("Sub", ["d", "first"], ["i"]),
            node("Gather", ["table", "i"], ["g"]),
            node("Mul", ["l", "g"], ["y"]),
        ]
        weights |= {"k8": np.array(8000), "first": np.array(1), "table": np.array([1, 2], np.float32)}
        inputs.append(value("sr", 7, []))
    return model_of(nodes, inputs, ["y" if rate else "l", "hn"], weights)


@pytest.mark.parametrize(("kind", "states"), [("LSTM", ["h", "c"]), ("GRU", ["h"])])
def test_states_and_a_sample_rate_are_found(kind, states):
    model = recurrent(kind, states)
    feeds = inspect(model).feeds
    assert feeds["x"].shape[2] == 10
    assert {feeds[state].shape for state in states} == {(1, feeds["x"].shape[0], 12)}
    assert feeds["sr"] in (8000, 16000)
    report = prune(model, calibration="none", measure=False).report
    assert report.macs[1] < report.macs[0]


def test_sizes_inside_the_branches_of_an_if_are_found():
    """A voice detector: a branch for each sample rate, with its own weights; the states are one input, split in it."""

    def branch(tag, window):
        held = {"w": random(16, 1, window), "W": random(1, 48, 16), "R": random(1, 48, 12), "o": random(12, 1)}
        held |= {"pads": np.array([0, window // 2, 0, window // 2]), "first": np.array([0]), "one": np.array([1])}
        nodes = [
            node("Pad", ["x", f"{tag}pads"], [f"{tag}p"], mode="reflect"),
            node("Unsqueeze", [f"{tag}p", f"{tag}one"], [f"{tag}u"]),
            node("Conv", [f"{tag}u", f"{tag}w"], [f"{tag}c"], strides=[window // 2]),
            node("Transpose", [f"{tag}c"], [f"{tag}t"], perm=[2, 0, 1]),
            node("Split", ["state"], [f"{tag}h", f"{tag}k"], axis=0),
            node(
                "LSTM", [f"{tag}t", f"{tag}W", f"{tag}R", "", "", f"{tag}h", f"{tag}k"], ["", f"{tag}n"], hidden_size=12
            ),
            node("Squeeze", [f"{tag}n", f"{tag}first"], [f"{tag}q"]),
            node("MatMul", [f"{tag}q", f"{tag}o"], [f"{tag}y"]),
        ]
        weights = [numpy_helper.from_array(np.asarray(v), tag + k) for k, v in held.items()]
        return helper.make_graph(nodes, tag, [], [value(f"{tag}y", 1, None)], weights)

    nodes = [
        node("Equal", ["sr", "rate"], ["wide"]),
        node("If", ["wide"], ["y"], then_branch=branch("a", 64), else_branch=branch("b", 32)),
    ]
    inputs = [value("x", 1, ["b", "l"]), value("state", 1, [2, None, None]), value("sr", 7, [])]
    model = model_of(nodes, inputs, ["y"], {"rate": np.array(16000)})
    assert needed_sizes(model.graph)["state"] == {1: 0, 2: 12}
    assert known_numbers(model.graph) == {"sr": (16000, 8000)}
    assert inspect(model).feeds["state"].shape == (2, 1, 12)


@pytest.mark.parametrize(
    ("nodes", "weight", "declared", "shape"),
    [
        ([node("MatMul", ["b", "w"], ["y"])], random(37, 8), ["foo", "bar"], (37,)),
        ([node("Gemm", ["b", "w"], ["y"], transB=1)], random(8, 37), [None, None], (37,)),
        ([node("Conv", ["b", "w"], ["y"])], random(8, 5, 3, 3), ["n", "k", "h", "w"], (5,)),
        ([node("Conv", ["b", "w"], ["y"], group=2)], random(8, 5, 3), [None, None, None], (10,)),
        ([node("ConvTranspose", ["b", "w"], ["y"])], random(6, 5, 3), [None, None, None], (6,)),
    ],
)
def test_a_dimension_that_is_named_and_never_bound_is_what_the_weights_read(nodes, weight, declared, shape):
    model = model_of([node("Relu", ["x"], ["b"]), *nodes], [value("x", 1, declared)], ["y"], {"w": weight})
    assert inspect(model).feeds["x"].shape[1] == shape[0]
