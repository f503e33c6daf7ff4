"""Every change of one constant, attribute or input of a right cut that changes anything is refused: more networks.

What a change does is told from outside: a change after which no tensor of the model differs is none.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.graph.export import to_model
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof.prove import prove_cut

from .wrong_cuts import changes, not_refused, shown

# Each ends in an index, so that its output shows little: y is `l` (n, 6) at its largest.
_HEAD = "y = ArgMax <axis = 1> (l)"
NETWORKS = {
    "two inputs": (
        "float[n, 3, 8, 8] a, float[n, 3, 8, 8] b",
        """
        p0 = Conv (a, wa, ba)
        p = Relu (p0)
        q0 = Conv (b, wb, bb)
        q = Relu (q0)
        m = Mul (p, q)
        s = Sub (p, m)
        c = Concat <axis = 1> (s, q)
        d = Conv (c, wc)
        g = GlobalAveragePool (d)
        f = Flatten (g)
        l = Gemm (f, wl, bl)
        """,
        {"wa": (8, 3, 3, 3), "ba": (8,), "wb": (8, 3, 3, 3), "bb": (8,), "wc": (9, 16, 1, 1), "wl": (9, 6), "bl": (6,)},
        {},
    ),
    "attention": (
        "float[n, 5, 6] x",
        """
        q0 = MatMul (x, wq)
        q1 = Add (q0, bq)
        k0 = MatMul (x, wk)
        v0 = MatMul (x, wv)
        v1 = Add (v0, bv)
        qr = Reshape (q1, heads)
        kr = Reshape (k0, heads)
        vr = Reshape (v1, heads)
        q = Transpose <perm = [0, 2, 1, 3]> (qr)
        k = Transpose <perm = [0, 2, 3, 1]> (kr)
        v = Transpose <perm = [0, 2, 1, 3]> (vr)
        s0 = MatMul (q, k)
        s1 = Mul (s0, half)
        s = Softmax <axis = -1> (s1)
        o = MatMul (s, v)
        t = Transpose <perm = [0, 2, 1, 3]> (o)
        r = Reshape (t, flat)
        u0 = MatMul (r, wo)
        u = Tanh (u0)
        h = MatMul (u, w1)
        z = ReduceMean <axes = [1], keepdims = 0> (h)
        e = Relu (z)
        l = MatMul (e, w2)
        """,
        {"wq": (6, 12), "bq": (12,), "wk": (6, 12), "wv": (6, 12), "bv": (12,), "wo": (12, 8), "w1": (8, 9),
         "w2": (9, 6)},
        {"heads": [0, 5, 4, 3], "flat": [0, 5, -1], "half": np.float32(0.5)},
    ),
    "recurrent": (
        "float[4, n, 6] x",
        """
        a0 = MatMul (x, w0)
        a = Relu (a0)
        b = LSTM <hidden_size = 7> (a, wl, rl, bl)
        s = Squeeze (b, one)
        g, last = GRU <hidden_size = 6, linear_before_reset = 1> (s, wg, rg, bg)
        h = Squeeze (last, first)
        l = MatMul (h, w1)
        """,
        {"w0": (6, 8), "wl": (1, 28, 8), "rl": (1, 28, 7), "bl": (1, 56), "wg": (1, 18, 7), "rg": (1, 18, 6),
         "bg": (1, 36), "w1": (6, 6)},
        {"one": [1], "first": [0]},
    ),
    "groups, slices and pads": (
        "float[n, 3, 8, 8] x",
        """
        a0 = Conv (x, w0, b0)
        a = Relu (a0)
        c = Conv <group = 4> (a, wg, bg)
        d = Sigmoid (c)
        p, q = Split <axis = 1> (d, parts)
        e = Pad (p, pads)
        f = Slice (a, from, to, axes)
        h = Add (e, f)
        j = Concat <axis = 1> (h, q)
        k = Transpose <perm = [0, 2, 3, 1]> (j)
        m = MatMul (k, w1)
        z = ReduceMean <axes = [1, 2], keepdims = 0> (m)
        r = LeakyRelu (z)
        l = MatMul (r, w2)
        """,
        {"w0": (12, 3, 3, 3), "b0": (12,), "wg": (12, 3, 1, 1), "bg": (12,), "w1": (13, 9), "w2": (9, 6)},
        {"parts": [5, 7], "pads": [0, 1, 0, 0, 0, 0, 0, 0], "from": [3], "to": [9], "axes": [1]},
    ),
}  # fmt: skip


def network(kind: str) -> onnx.ModelProto:
    inputs, nodes, shapes, constants = NETWORKS[kind]
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]>\n g ({inputs}) => (int64[n, 1] y)\n {{{nodes}\n{_HEAD}\n}}'
    )
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal(shape) * 0.5).astype(np.float32) for name, shape in shapes.items()}
    weights |= {name: np.asarray(numbers) for name, numbers in constants.items()}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def survivors(kind: str, every: int) -> tuple[list[str], int]:
    """The mutations that change something and pass, of every so manieth; and how many changed something."""
    analysis = analyse(network(kind))
    removed = analysis.groups.removed_labels({g.name: range(0, g.units, 3) for g in analysis.groups.free})
    assert removed.any()
    cut = to_model(apply_removal(analysis.groups.labelled, removed))
    assert not prove_cut(analysis.groups, removed, cut, analysis.feeds).unseen
    rng = np.random.default_rng(5)
    shapes = {name: tuple(max(size, 2) for size in array.shape) for name, array in analysis.feeds.items()}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    right = shown(cut, feeds)
    assert right is not None

    def is_other(wrong):
        return changes(right, shown(wrong, feeds))

    return not_refused(cut, every, is_other, lambda wrong: prove_cut(analysis.groups, removed, wrong, analysis.feeds))


@pytest.mark.parametrize("kind", NETWORKS)
def test_some_changes_of_each_network_are_refused(kind):
    passed, changed = survivors(kind, every=9)
    assert (passed, changed > 5) == ([], True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_change_of_each_network_is_refused(kind):
    passed, changed = survivors(kind, every=1)
    assert (passed, changed > 60) == ([], True)
