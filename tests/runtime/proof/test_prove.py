"""The proof tells rounding errors, which a model may enlarge, from errors of the cut."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof import prove as proof_module
from onnx_prune.runtime.proof.compare import own_error
from onnx_prune.runtime.proof.prove import TOLERANCE, prove_cut

SCALE = 1e3  # radians: a rounding error of the sum is no longer small beside the sine


@pytest.fixture
def cut(request):
    """The labelled x -> W1 -> W2 -> sin(scale * .), removed labels (half of the hidden units) and the cut model."""
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 256] x) => (float[1, 64] y)
    { h = MatMul (x, w1)  r = Relu (h)  z = MatMul (r, w2)  s = Mul (z, k)  t = Sin (s)  y = Mul (t, k) }
    """)
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (256, 512), "w2": (512, 64)}.items():
        values = rng.standard_normal(shape) / np.sqrt(shape[0])
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(request.param), "k"))
    analysis = analyse(model)
    (group,) = (g for g in analysis.groups.free if g.units == 512)
    removed = analysis.groups.removed_labels({group.name: range(0, 512, 2)})
    return analysis, removed


def proven(analysis, removed):
    model = to_model(apply_removal(analysis.groups.labelled, removed))
    return prove_cut(analysis.groups, removed, model, analysis.feeds)


@pytest.mark.parametrize("cut", [SCALE], indirect=True)
def test_where_rounding_errors_are_large_another_input_decides(cut, monkeypatch):
    analysis, removed = cut
    assert own_error(analysis.graph.source, [analysis.feeds]) > 1e-5
    assert proven(analysis, removed).error <= TOLERANCE
    monkeypatch.setattr(proof_module, "_OTHER_INPUTS", ())
    with pytest.raises(ProofError):
        proven(analysis, removed)


@pytest.mark.parametrize("cut", [SCALE, 1.0], indirect=True)
def test_a_wrong_index_fails_where_rounding_errors_are_large_and_where_not(cut, monkeypatch):
    right = Cut.compress
    monkeypatch.setattr(
        Cut, "compress", lambda c, constant, v: right(c, constant, np.roll(v, 1, 0) if constant.name == "w2" else v)
    )
    with pytest.raises(ProofError, match="differs from the original"):
        proven(*cut)


@pytest.mark.parametrize("cut", [1.0], indirect=True)
def test_a_calm_model_differs_from_itself_by_next_to_nothing(cut):
    analysis, _ = cut
    assert 0 < own_error(analysis.graph.source, [analysis.feeds]) < 1e-6
    assert isinstance(analysis.graph.source, onnx.ModelProto)
