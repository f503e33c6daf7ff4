"""Two models that draw random numbers draw the same ones, wherever the nodes stand; nothing else is changed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.rewrite.arithmetic.seeded import draws_anew, seeded
from onnx_prune.pipeline.prune import inspect, prune

NET = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[n, 3, 6, 6] x) => (float[n, 2, 4, 4] y)
    <float[16, 3, 1, 1] w0, float[12, 16, 3, 3] w1, float[2, 12, 1, 1] w2, float half = {0.5}, bool on = {1}> {
      %s
    }
    """
# What a graph draws -> its nodes, and the group that its numbers are drawn for, if any.
_REST = "c = Conv (b, w1)\n d = Relu (c)\n y = Conv (d, w2)"
_FIRST = f"a = Conv (v, w0)\n b = Relu (a)\n {_REST}"
DRAWING = {
    "dropout in training mode": (f"a = Conv (x, w0)\n b = Dropout (a, half, on)\n {_REST}", "a"),
    "noise of the channels": (f"a = Conv (x, w0)\n z = RandomNormalLike (a)\n b = Add (a, z)\n {_REST}", "a"),
    "a number for each channel": (
        f"a = Conv (x, w0)\n p = Sigmoid (a)\n q = Bernoulli (p)\n b = Mul (a, q)\n {_REST}",
        "a",
    ),
    "noise of the input": (f"z = RandomUniformLike (x)\n v = Add (x, z)\n {_FIRST}", None),
    "dropout of the input": (f"v = Dropout (x, half, on)\n {_FIRST}", None),
}


@pytest.mark.parametrize("kind", DRAWING)
def test_what_is_drawn_keeps_its_channels_and_nothing_else(kind, graphs, tmp_path):
    nodes, drawn = DRAWING[kind]
    model = graphs.parse(NET % nodes)
    pinned = {group.name for group in inspect(model).groups.groups if "draws random numbers" in (group.pinned or "")}
    assert pinned == ({drawn} if drawn else set())
    result = prune(model, budget="70%", calibration="none", measure=False)
    result.save(tmp_path / "cut.onnx")
    assert result.report.macs[1] <= 0.7 * result.report.macs[0]
    assert result.report.proof < 1e-5


@pytest.mark.parametrize("kind", ["dropout of the input", "noise of the input"])
def test_a_wrong_cut_behind_random_numbers_is_refused(kind, graphs, monkeypatch):
    from onnx_prune.passes.channels.cut import Cut

    right = Cut.compress
    monkeypatch.setattr(
        Cut, "compress", lambda c, constant, v: right(c, constant, np.roll(v, 1, 1) if constant.name == "w1" else v)
    )
    with pytest.raises(ProofError):
        prune(graphs.parse(NET % DRAWING[kind][0]), budget="70%", calibration="none", measure=False)


def test_a_node_draws_the_same_wherever_it_stands(graphs):
    nodes = DRAWING["noise of the input"][0]
    one, other = graphs.parse(NET % nodes), graphs.parse(NET % f"unused = Neg (x)\n {nodes}")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)}
    for tensor, same in zip(one.graph.initializer, other.graph.initializer, strict=True):
        same.CopyFrom(tensor)
    assert not np.array_equal(graphs.ort(one, feeds), graphs.ort(other, feeds))
    assert np.array_equal(graphs.ort(seeded(one), feeds), graphs.ort(seeded(other), feeds))


def test_a_model_that_draws_nothing_is_left_alone(graphs):
    model = graphs.parse(NET % "a = Conv (x, w0)\n b = Dropout (a)\n c = Conv (b, w1)\n y = Conv (c, w2)")
    assert not draws_anew(model.graph)
    assert seeded(model) is model
