"""Ids, masks and strings are others too, where the first ones show nothing."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.errors import ProofError
from onnx_prune.pipeline.prune import prune

_TAIL = "c = MatMul (b, w1)\n d = Relu (c)\n y = MatMul (d, w2)"
# What a network reads -> its inputs, and what it makes `b` (n, 16) of them.
READS = {
    "two ids": (
        "int64[1] u, int64[1] i",
        "p = Gather (table, u)\n q = Gather (table, i)\n a = Add (p, q)\n b = Relu (a)",
    ),
    "a mask beside numbers": (
        "float[n, 6] x, bool[n, 1] m",
        "a = MatMul (x, w0)\n k = Cast <to = 1> (m)\n r = Relu (a)\n b = Mul (r, k)",
    ),
    "a number without axes": ("float[1, 6] x, float h", "s = Mul (x, h)\n a = MatMul (s, w0)\n b = Relu (a)"),
    "words": (
        "string[1] t",
        """
        i = ai.onnx.ml.LabelEncoder <keys_strings = ["left", "right"], values_int64s = [0, 1], default_int64 = 2> (t)
        b = Gather (table, i)""",
    ),
    "an id between others": ("int32[1, 3] i", "p = Gather (table, i)\n b = ReduceMean <axes = [1], keepdims = 0> (p)"),
}


def network(kind):
    inputs, nodes = READS[kind]
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 2]>\n g ({inputs}) => (float[n, 3] y)\n'
        f"{{ {nodes}\n {_TAIL} }}"
    )
    rng = np.random.default_rng(0)
    shapes = {"table": (5, 16), "w0": (6, 16), "w1": (16, 24), "w2": (24, 3)}
    read = {name for node in model.graph.node for name in node.input}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items() if name in read}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


@pytest.mark.parametrize("kind", READS)
def test_what_is_read_changes_until_all_groups_are_seen(kind):
    result = prune(network(kind), calibration="none", measure=False, align=1)
    assert result.report.macs[1] <= 0.5 * result.report.macs[0]
    assert not [group for group in result.report.groups if group.pinned and "shows" in group.pinned]


@pytest.mark.parametrize("kind", READS)
def test_a_wrong_cut_behind_them_is_refused(kind, monkeypatch):
    right = Cut.compress
    monkeypatch.setattr(
        Cut, "compress", lambda c, constant, v: right(c, constant, np.roll(v, 1, 0) if constant.name == "w2" else v)
    )
    with pytest.raises(ProofError):
        prune(network(kind), calibration="none", measure=False, align=1)
