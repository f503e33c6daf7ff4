"""A wrong cut is refused where the rest of the network shows little of it: shut gates, dead and saturated channels.

Each network loses a third of every group that its proof can see; the others are kept whole. What a change does is told
from outside, on ordinary numbers and on large ones, which get over the biases and thresholds.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.graph.export import to_model
from onnx_prune.runtime.analysis import analyse, with_pins
from onnx_prune.runtime.proof.prove import prove_cut

from .wrong_cuts import not_refused, shown

# What stands between `a` (n, 8, 8, 8) and `z` (n, 9, h, w), the change of some weights, and the head behind `l` (n, 6).
BEHIND = {
    "dead activations": ("c = Conv (a, wc, bc)\n d = Relu (c)\n z = Conv (d, wz, bz)", {"bc": -50}, "y = Abs (l)"),
    "a hard gate": (
        """c = Conv (a, wc, bc)
           m = ReduceMax <axes = [1, 2, 3], keepdims = 1> (x)
           o = Greater (m, fifty)
           g = Cast <to = 1> (o)
           b = Mul (c, g)
           e = Conv (b, we)
           s = Add (a, e)
           z = Conv (s, w8)""",
        {},
        "y = Abs (l)",
    ),
    "saturated gates": (
        """c = Conv (a, wc, bc)
           p = GlobalAveragePool (c)
           q = Conv (p, wq, bq)
           r = Relu (q)
           t = Conv (r, wt, bt)
           g = Sigmoid (t)
           m = Mul (c, g)
           z = Conv (m, wz)""",
        {"bt": 40},
        "i = ArgMax <axis = 1> (l)\n y = Cast <to = 1> (i)",
    ),
    "small signals on huge biases": (
        "c = Conv (a, wc, bc)\n v = InstanceNormalization (c, bq10, bz10)\n z = Conv (v, wz, bz)",
        {"bc": 2000},
        "y = Identity (l)",
    ),
    "a clip that never lets through": (
        "c = Conv (a, wc, bc)\n d = Clip (c, fifty, hundred)\n z = Conv (d, wz, bz)",
        {},
        "y = Clip (l, fifty, hundred)",
    ),
    "logarithms of negative numbers": (
        "c = Conv (a, wc, bc)\n d = Log (c)\n e = Tanh (d)\n z = Conv (e, wz, bz)",
        {},
        "y = Sqrt (l)",
    ),
    "small numbers beside large ones": (
        """p = Conv (a, wc, bc)
           p1 = Mul (p, large)
           q = Conv (a, wu, bq)
           q1 = Mul (q, little)
           j = Concat <axis = 1> (p1, q1)
           z0 = Conv (j, wj)
           z = Tanh (z0)""",
        {},
        "y = Identity (l)",
    ),
}
SHAPES = {
    "w0": (8, 3, 3, 3), "b0": (8,), "wc": (10, 8, 1, 1), "bc": (10,), "wz": (9, 10, 1, 1), "bz": (9,),
    "we": (8, 10, 1, 1), "w8": (9, 8, 1, 1), "wq": (5, 10, 1, 1), "bq": (5,), "wt": (10, 5, 1, 1), "bt": (10,),
    "wu": (5, 8, 1, 1), "wj": (9, 15, 1, 1), "bq10": (10,), "bz10": (10,), "wl": (9, 6), "bl": (6,),
}  # fmt: skip
NUMBERS = {"fifty": 50, "hundred": 100, "large": 1e5, "little": 1e-5}


def network(kind: str) -> onnx.ModelProto:
    middle, shifts, head = BEHIND[kind]
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 3, 8, 8] x) => (float[n, k] y)
    {{
      a0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
      a = Relu (a0)
      {middle}
      f0 = GlobalAveragePool (z)
      f = Flatten (f0)
      l = Gemm (f, wl, bl)
      {head}
    }}""")
    rng = np.random.default_rng(0)
    weights = {k: rng.standard_normal(shape) * 0.5 + shifts.get(k, 0) for k, shape in SHAPES.items()}
    weights |= {name: np.asarray(number) for name, number in NUMBERS.items()}
    read = {name for node in model.graph.node for name in node.input}
    arrays = {name: array.astype(np.float32) for name, array in weights.items() if name in read}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def right_cut(kind: str):
    """The analysis, in which what its proof cannot see is pinned, the labels that go, and the cut model."""
    analysis = analyse(network(kind))
    while True:
        removed = analysis.groups.removed_labels({g.name: range(0, g.units, 3) for g in analysis.groups.free})
        cut = to_model(apply_removal(analysis.groups.labelled, removed))
        unseen = prove_cut(analysis.groups, removed, cut, analysis.feeds).unseen
        if not unseen:
            return analysis, removed, cut
        analysis = with_pins(analysis, unseen)


def _differ(before: dict[str, np.ndarray], after: dict[str, np.ndarray] | None) -> bool:
    """Whether some tensor is another one by a hundredth of how far its numbers are apart, and more than by rounding."""
    return after is None or any(_is_other(array, after[name]) for name, array in before.items())


def _is_other(a: np.ndarray, b: np.ndarray) -> bool:
    finite = np.isfinite(a)
    if a.shape != b.shape or not np.array_equal(finite, np.isfinite(b)):
        return True
    a, b = a[finite].astype(float), b[finite].astype(float)
    apart = np.abs(a - b).max(initial=0)
    return bool(a.size and apart > max(1e-2 * np.abs(a - a.mean()).max(), 1e-6 * np.abs(a).max()))


def survivors(kind: str, every: int) -> tuple[list[str], int]:
    """The mutations that change something and pass, of every so manieth; and how many changed something."""
    analysis, removed, cut = right_cut(kind)
    assert removed.any()
    rng = np.random.default_rng(5)
    feeds = [{"x": (size * rng.standard_normal((2, 3, 8, 8))).astype(np.float32)} for size in (1, 30)]
    right = [shown(cut, each) or {} for each in feeds]

    def is_other(wrong):
        return any(_differ(before, shown(wrong, each)) for before, each in zip(right, feeds, strict=True))

    return not_refused(cut, every, is_other, lambda wrong: prove_cut(analysis.groups, removed, wrong, analysis.feeds))


@pytest.mark.parametrize("kind", BEHIND)
def test_some_changes_are_refused(kind):
    passed, changed = survivors(kind, every=11)
    assert (passed, changed >= 5) == ([], True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BEHIND)
def test_every_change_is_refused(kind):
    passed, changed = survivors(kind, every=1)
    assert (passed, changed > 50) == ([], True)


def test_a_shut_branch_is_not_taken_for_a_right_one(monkeypatch):
    """The gate is shut on all inputs but the large ones: without these, what it hides is kept whole."""
    monkeypatch.setattr("onnx_prune.runtime.proof.inside.further", lambda *_: iter(()))
    analysis, _, _ = right_cut("a hard gate")
    reasons = [group.pinned for group in analysis.groups.groups if group.pinned and "nothing shows" in group.pinned]
    assert len(reasons) >= 2
