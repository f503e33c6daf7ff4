"""What is compared of large graphs: a share of the positions, every channel, and as few runs as may be."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof import inner
from onnx_prune.runtime.proof.prove import prove_cut

LAYERS, CHANNELS = 12, 8


@pytest.fixture(scope="module")
def deep():
    """A chain of convolutions on maps of 96 x 96, two of three channels of each layer left, and the cut model."""
    nodes, weights, name = [], {}, "x"
    rng = np.random.default_rng(0)
    for layer in range(LAYERS):
        shape = (CHANNELS if layer < LAYERS - 1 else 2, CHANNELS if layer else 3, 1, 1)
        weights[f"w{layer}"] = rng.standard_normal(shape).astype(np.float32) / 2
        nodes += [
            helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"]),
            helper.make_node("LeakyRelu", [f"c{layer}"], [f"r{layer}"]),
        ]
        name = f"r{layer}"
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", 1, [1, 3, 96, 96])],
        [helper.make_tensor_value_info(name, 1, None)],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    analysis = analyse(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    removed = analysis.groups.removed_labels({g.name: range(0, g.units, 3) for g in analysis.groups.free})
    return analysis, removed, to_model(apply_removal(analysis.groups.labelled, removed))


def shown_parts(monkeypatch, deep, cut=None):
    """How many tensors each session shows, and the proof."""
    analysis, removed, model = deep
    found = []
    whole = inner._shown

    def counted(model, tensors, *rest):
        found.append(len(tensors))
        return whole(model, tensors, *rest)

    monkeypatch.setattr(inner, "_shown", counted)
    return found, prove_cut(analysis.groups, removed, cut or model, analysis.feeds)


def test_fewer_positions_are_compared_where_all_would_take_several_runs(monkeypatch, deep):
    monkeypatch.setattr(inner, "_BYTES", 6 << 20)
    monkeypatch.setattr(inner, "_ELEMENTS", (1 << 16, 1 << 15, 1 << 14))
    few, proof = shown_parts(monkeypatch, deep)
    assert set(few) == {2 * LAYERS}
    assert proof.tensors[0] == proof.tensors[1] == 2 * (LAYERS - 1)
    monkeypatch.setattr(inner, "_ELEMENTS", (1 << 16,))
    assert max(shown_parts(monkeypatch, deep)[0]) < 2 * LAYERS


def test_a_channel_that_is_another_one_shows_on_them(monkeypatch, deep):
    monkeypatch.setattr(inner, "_BYTES", 1 << 18)
    analysis, removed, model = deep
    wrong = type(model).FromString(model.SerializeToString())
    (weight,) = (t for t in wrong.graph.initializer if t.name == "w5")
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[[1, 0, *range(2, len(values))]]), "w5"))
    (reader,) = (t for t in wrong.graph.initializer if t.name == "w6")
    values = numpy_helper.to_array(reader)
    reader.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[:, [1, 0, *range(2, values.shape[1])]]), "w6"))
    with pytest.raises(ProofError, match="inner tensors"):
        prove_cut(analysis.groups, removed, wrong, analysis.feeds)
