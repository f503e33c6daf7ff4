"""The proof's twin of weights that a Concat joins is silenced in every part."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.channels import silence as silence_module
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof.prove import prove_cut


def _model(kind: str) -> onnx.ModelProto:
    """x -> MatMul (w0) -> the operator, whose weights are joined from two or three parts -> MatMul (o)."""
    node, h = helper.make_node, 6
    if kind in ("LSTM", "GRU"):
        g = 4 if kind == "LSTM" else 3
        shapes = {"wa": (1, g * h, 8), "wb": (1, g * h, 8), "ra": (1, g * h, h), "rb": (1, g * h, h), "o": (2 * h, 3)}
        nodes = [
            node("Concat", ["wa", "wb"], ["W"], axis=0),
            node("Concat", ["ra", "rb"], ["R"], axis=0),
            node(kind, ["a", "W", "R"], ["y"], hidden_size=h, direction="bidirectional"),
            node("Transpose", ["y"], ["t"], perm=[0, 2, 1, 3]),
            node("Reshape", ["t", "shape"], ["z"]),
        ]
    elif kind == "transposed":
        shapes = {"wa": (4, 8), "wb": (5, 8), "o": (9, 3)}
        nodes = [
            node("Concat", ["wa", "wb"], ["W"], axis=0),
            node("Transpose", ["W"], ["Wt"], perm=[1, 0]),
            node("MatMul", ["a", "Wt"], ["m"]),
            node("Relu", ["m"], ["z"]),
        ]
    else:
        shapes = {"wa": (8, 4), "wb": (8, 5), "wc": (8, 3), "o": (12, 3)}
        nodes = [
            node("Concat", ["wa", "wb", "wc"], ["W"], axis=1),
            node("MatMul", ["a", "W"], ["m"]),
            node("Relu", ["m"], ["z"]),
        ]
    rng = np.random.default_rng(0)
    weights = {k: rng.standard_normal(s).astype(np.float32) * 0.5 for k, s in {"w0": (7, 8), **shapes}.items()}
    initializers = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    if kind in ("LSTM", "GRU"):
        initializers.append(numpy_helper.from_array(np.array([0, 0, -1]), "shape"))
    nodes = [node("MatMul", ["x", "w0"], ["a"]), *nodes, node("MatMul", ["z", "o"], ["out"])]
    x, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [5, 2, 7]), ("out", [5, 2, 3])))
    graph = helper.make_graph(nodes, "g", [x], [out], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


KINDS = ["LSTM", "GRU", "matmul", "transposed"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_a_joined_weight_is_silenced(kind):
    _prove(_model(kind))


def test_without_what_joins_the_parts_the_proof_fails(monkeypatch):
    real = silence_module.silence

    def forgets(labels, removed):
        labels.joined.clear()
        return real(labels, removed)

    monkeypatch.setattr("onnx_prune.runtime.proof.prove.silence", forgets)
    with pytest.raises(ProofError):
        _prove(_model("LSTM"))


def _prove(model: onnx.ModelProto) -> None:
    analysis = analyse(model)
    assert analysis.groups.free
    removed = analysis.groups.removed_labels({g.name: range(0, g.units, 2) for g in analysis.groups.free})
    cut = to_model(apply_removal(analysis.groups.labelled, removed))
    prove_cut(analysis.groups, removed, cut, analysis.feeds)
