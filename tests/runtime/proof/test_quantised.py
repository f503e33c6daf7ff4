"""Quantised activations: a value beside a tie refuses no right cut, and a wrong cut is refused as ever."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_prune.models import NetBuilder
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof import prove as proof_module
from onnx_prune.runtime.proof.prove import TOLERANCE, prove_cut

STEP, WIDTH, LAYERS = 0.02, 64, 4


def quantised(model):
    """The model with quantised activations, and weights of half such steps: one sum of a hundred or so is a tie."""
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type == "Relu":
            name = node.output[0]
            node.output[0] = f"{name}.exact"
            nodes.append(helper.make_node("QuantizeLinear", [f"{name}.exact", "step", "zero"], [f"{name}.q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", "step", "zero"], [name]))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            numpy_helper.from_array((np.round(values / STEP * 2) * STEP / 2).astype(np.float32), tensor.name)
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, value in {"step": np.float32(STEP), "zero": np.uint16(0)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.opset_import[0].version = 21
    return model


@pytest.fixture(scope="module")
def cut():
    net = NetBuilder("quantised", (3, 16, 16))
    x = net.input
    for number in range(LAYERS):
        x = net.relu(net.conv(x, f"c{number}", WIDTH, kernel=3, padding=1), f"r{number}")
    model = quantised(net.model(net.gemm(net.flatten(net.global_average_pool(x, "p"), "f"), "y", 10)))
    analysis = analyse(model)
    inner = [group for group in analysis.groups.free if group.units == WIDTH]
    assert len(inner) == LAYERS
    removed = analysis.groups.removed_labels({group.name: range(0, WIDTH, 3) for group in inner})
    return analysis, removed


def proven(analysis, removed):
    model = to_model(apply_removal(analysis.groups.labelled, removed))
    return prove_cut(analysis.groups, removed, model, analysis.feeds)


def test_a_right_cut_is_proved_though_some_values_are_rounded_to_the_next_step(cut, monkeypatch):
    proof = proven(*cut)
    assert proof.error <= TOLERANCE
    assert proof.tensors[0] == proof.tensors[1] > 5
    monkeypatch.setattr(proof_module, "calm", lambda model: model)
    with pytest.raises(ProofError):
        proven(*cut)


@pytest.mark.parametrize("name", ["c1.weight", "c3.weight", "c2.bias"])
def test_a_wrong_index_is_refused(cut, monkeypatch, name):
    right = Cut.compress
    monkeypatch.setattr(
        Cut, "compress", lambda c, constant, v: right(c, constant, np.roll(v, 1, 0) if constant.name == name else v)
    )
    with pytest.raises(ProofError, match="differs from the original"):
        proven(*cut)
