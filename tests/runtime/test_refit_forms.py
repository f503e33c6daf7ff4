"""A refit finds the same in every form of a network: norms folded or not, shared and quantised weights."""

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from onnx_prune.passes.channels.affine import affine_consumers
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.passes.selection.criteria import make_criterion
from onnx_prune.passes.selection.ranking import Evidence, rank_groups
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate
from onnx_prune.runtime.reconstruct import refit_sequentially
from onnx_prune.runtime.refit.fits import find_fits
from onnx_prune.runtime.refit_jointly import refit_jointly
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.torch.joint.fit import Steps

HOW = Calibration(positions=99)


def build(text, weights):
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    model.graph.initializer.extend(
        numpy_helper.from_array(v if v.dtype.kind in "iu" else v.astype(np.float32), k) for k, v in weights.items()
    )
    return model


def mixed(count, side=6, seed=1):
    """Images whose channels depend on one another, as those of activations do."""
    rng = np.random.default_rng(seed)
    return np.einsum("ncij,cd->ndij", rng.standard_normal((count, 3, side, side)), rng.standard_normal((3, 3))).astype(
        np.float32
    )


def groups_of(model):
    graph = load(model)
    return channel_groups(label_channels(graph, tensor_facts(graph)))


def pruned(model, feeds, units):
    """The model without half of every group of so many units, by obs: not refitted, and refitted."""
    groups = groups_of(model)
    batches = [Batch({k: v[i : i + 16] for k, v in feeds.items()}, None) for i in range(0, 64, 16)]
    moments = calibrate(groups.labelled, batches, settings=HOW)
    rankings = rank_groups(make_criterion("obs"), Evidence(groups, moments=moments))
    cut = {g.name: rankings[g.name].order[: g.units // 2] for g in groups.free if g.units == units}
    removed = groups.removed_labels(cut)
    bare, refitted = (apply_removal(groups.labelled, removed) for _ in range(2))
    found = refit_sequentially(groups.labelled, removed, refitted, batches, HOW)
    return {k: sorted(v.tolist()) for k, v in cut.items()}, to_model(bare), to_model(refitted), found


def run(model, feeds):
    (value,) = open_session(model).run(feeds).values()
    return value


# ---- BatchNormalization

BLOCK = """
g (float[N, 3, 6, 6] x) => (float[N, 5] y) {{
  a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) r = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (r, w1{b1}) {n1} s = Relu ({c})
  d = Conv <pads = [1, 1, 1, 1]> (s, w2{b2}) {n2} t = Add (r, {d}) u = Relu (t)
  p = ReduceMean <axes = [2, 3], keepdims = 0> (u) y = MatMul (p, w3)
}}
"""
NORM = "{} = BatchNormalization ({}, g{n}, h{n}, m{n}, v{n})"


@pytest.fixture(scope="module")
def block():
    """A residual block as one exporter writes it, with its norms folded, and as another does."""
    rng = np.random.default_rng(0)
    w = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (12, 8, 3, 3), "w2": (8, 12, 3, 3), "w3": (8, 5)}
    w = {k: rng.standard_normal(s) / 4 for k, s in w.items()}
    norms = {}
    for number, n in ((1, 12), (2, 8)):
        scale, shift, mean, var = (
            rng.uniform(0.2, 3, n),
            rng.standard_normal(n),
            rng.standard_normal(n),
            rng.uniform(0.1, 2, n),
        )
        norms |= {
            f"g{number}": scale * rng.choice([-1, 1], n),
            f"h{number}": shift,
            f"m{number}": mean,
            f"v{number}": var,
        }
    whole = build(
        BLOCK.format(b1="", b2="", n1=NORM.format("cn", "c", n=1), n2=NORM.format("dn", "d", n=2), c="cn", d="dn"),
        w | norms,
    )
    folded = dict(w)
    for number in (1, 2):
        scale = norms[f"g{number}"] / np.sqrt(norms[f"v{number}"] + 1e-5)
        folded[f"w{number}"] = w[f"w{number}"] * scale[:, None, None, None]
        folded[f"b{number}"] = norms[f"h{number}"] - norms[f"m{number}"] * scale
    return whole, build(BLOCK.format(b1=", b1", b2=", b2", n1="", n2="", c="c", d="d"), folded)


def test_norms_folded_or_not_the_same_units_go_and_the_same_function_comes_out(block):
    x = {"x": mixed(64)}
    np.testing.assert_allclose(run(block[0], x), run(block[1], x), atol=1e-4)
    found = [pruned(model, x, 12) for model in block]
    assert list(found[0][0].values()) == list(found[1][0].values())
    np.testing.assert_allclose(run(found[0][2], x), run(found[1][2], x), atol=2e-4)
    before, after = (np.square(run(m, x) - run(block[0], x)).mean() for m in found[0][1:3])
    assert after < 0.5 * before


def test_layers_fitted_together_come_to_the_same_function_in_both_forms(block):
    x = {"x": mixed(256)}
    batches = [Batch({"x": x["x"][i : i + 64]}, None) for i in range(0, 256, 64)]
    made = []
    for model in block:
        groups = groups_of(model)
        removed = groups.removed_labels({g.name: range(0, 12, 2) for g in groups.free if g.units == 12})
        cut = apply_removal(groups.labelled, removed)
        refit_sequentially(groups.labelled, removed, cut, batches, HOW)
        before = run(to_model(cut), x)
        assert refit_jointly(groups.labelled, removed, cut, batches, Steps(4, epochs=3, rate=3e-3)).nearer
        made.append((before, run(to_model(cut), x)))
    far = np.abs(made[0][1] - made[0][0]).max()  # how far the steps lead
    np.testing.assert_allclose(made[0][1], made[1][1], atol=0.01 * far)


@pytest.mark.shared
@pytest.mark.parametrize("depth", [20, 56])
def test_both_exports_of_a_network_have_the_same_targets(shared, depth):
    counts = []
    for form in ("", "-bn"):
        groups = analyse(shared / "models" / f"resnet{depth}-cifar10{form}.onnx").groups
        inner = {g.name: range(g.units // 2) for g in groups.free if len(g.produced) == 1}
        removed = groups.removed_labels(inner)
        fits = find_fits(groups.labelled, removed, apply_removal(groups.labelled, removed), find_taps(groups.labelled))[
            0
        ]
        paths = [path for fit in fits for path in fit.paths]
        counts.append((len(fits), sum(len(p.summands) for p in paths), sum(p.activation is not None for p in paths)))
    assert counts[0] == counts[1]
    assert counts[0][1] == (depth - 2) // 2  # every block's second layer is fitted to the sum


GROUPED = """
g (float[N, 3, 6, 6] x) => (float[N, 5] y) {{
  c = Conv (x, w1{b1}) {n1} r = Relu ({c}) d = Conv <group = 4> (r, w2) s = Relu (d)
  p = ReduceMean <axes = [2, 3], keepdims = 0> (s) y = MatMul (p, w3)
}}
"""


def test_in_front_of_groups_the_same_units_go_in_both_forms():
    rng = np.random.default_rng(0)
    w = {"w1": (48, 3, 3, 3), "w2": (48, 12, 1, 1), "w3": (48, 5)}
    w = {k: rng.standard_normal(s) for k, s in w.items()}
    scale, shift = rng.uniform(0.05, 4, 48), rng.standard_normal(48)
    norms = {"g1": scale, "h1": shift, "m1": np.zeros(48), "v1": np.ones(48) - 1e-5}
    whole = build(GROUPED.format(b1="", n1=NORM.format("cn", "c", n=1), c="cn"), w | norms)
    folded = w | {"w1": w["w1"] * scale[:, None, None, None], "b1": shift}
    found = []
    for model in (whole, build(GROUPED.format(b1=", b1", n1="", c="c"), folded)):
        groups = groups_of(model)
        moments = calibrate(groups.labelled, [Batch({"x": mixed(64)}, None)], settings=HOW)
        rankings = rank_groups(make_criterion("obs"), Evidence(groups, moments=moments))
        found.append([rankings[g.name].order.tolist() for g in groups.free if g.name.startswith("c")])
    assert found[0] == found[1]
    assert found[0]


# ---- shared weights

BRANCH = """
c{n} = Conv <pads = [1, 1, 1, 1]> (x{n}, w1, b1) r{n} = Relu (c{n}) d{n} = Conv (r{n}, w2{bias}) s{n} = Relu (d{n})
"""


def siamese(bias=", b2"):
    rng = np.random.default_rng(0)
    w = {"w1": (10, 3, 3, 3), "b1": (10,), "w2": (6, 10, 3, 3), "b2": (6,)}
    branches = " ".join(BRANCH.format(n=n, bias=bias) for n in (1, 2))
    text = f"g (float[N, 3, 6, 6] x1, float[N, 3, 6, 6] x2) => (float[N, 6, 4, 4] y) {{ {branches} y = Sub (s1, s2) }}"
    return build(text, {k: rng.standard_normal(s) / 3 for k, s in w.items() if bias or k != "b2"})


@pytest.mark.parametrize("bias", [", b2", ""])
def test_a_weight_that_two_inputs_share_is_ranked_and_refitted_on_both(bias):
    model = siamese(bias)
    (consumer,) = (c for c in affine_consumers(groups_of(model).labelled) if c.name == "d1")
    assert consumer.uses == ("d1", "d2")
    feeds = {"x1": mixed(64), "x2": 2 * mixed(64, seed=5)}
    _, bare, refitted, found = pruned(model, feeds, 10)
    assert found.layers == 1
    lost = np.square(run(bare, feeds) - run(model, feeds)).mean()
    assert np.square(run(refitted, feeds) - run(model, feeds)).mean() < 0.5 * lost
    values = {t.name: numpy_helper.to_array(t) for t in refitted.graph.initializer}
    assert sum(array.shape == (6, 5, 3, 3) for array in values.values()) == 1


def test_a_layer_that_two_inputs_share_counts_the_moments_of_both():
    model, feeds = siamese(), {"x1": mixed(8), "x2": 3 * mixed(8, seed=5)}
    groups = groups_of(model)
    moments = calibrate(groups.labelled, [Batch(feeds, None)], settings=HOW)
    both = moments.pooled(("d1", "d2"))
    one, other = moments["d1"], moments["d2"]
    assert both.rows == one.rows + other.rows
    np.testing.assert_allclose(both.second, (one.second + other.second) / 2)
    assert not np.allclose(one.second, other.second, rtol=0.1)


def test_a_weight_that_is_used_again_on_what_it_made_stays_and_that_is_said():
    rng = np.random.default_rng(0)
    text = "g (float[N, 4] x) => (float[N, 4] y) { a = MatMul (x, w1) r = Relu (a) b = MatMul (r, w2) s = Relu (b) "
    text += "c = MatMul (s, w1) t = Relu (c) y = MatMul (t, w2) }"
    model = build(text, {"w1": rng.standard_normal((4, 9)), "w2": rng.standard_normal((9, 4))})
    feeds = {"x": rng.standard_normal((64, 4)).astype(np.float32)}
    _, bare, refitted, found = pruned(model, feeds, 9)
    assert (found.layers, set(found.left.values())) == (0, {"it is used again on what it made itself"})
    np.testing.assert_array_equal(run(refitted, feeds), run(bare, feeds))


# ---- quantised weights

QDQ = """
g (float[N, 3, 6, 6] x) => (float[N, 6, 4, 4] y) {
  xq = QuantizeLinear (x, sx, zx) xd = DequantizeLinear (xq, sx, zx)
  f1 = DequantizeLinear <axis = 0> (q1, s1, z1) e1 = DequantizeLinear (i1, t1)
  c = Conv <pads = [1, 1, 1, 1]> (xd, f1, e1)
  r = Relu (c) rq = QuantizeLinear (r, sr, zr) rd = DequantizeLinear (rq, sr, zr)
  f2 = DequantizeLinear <axis = 0> (q2, s2, z2) e2 = DequantizeLinear (i2, t2)
  d = Conv (rd, f2, e2) dq = QuantizeLinear (d, sd, zd) y = DequantizeLinear (dq, sd, zd)
}
"""


def quantised(coarse=100, below_zero=True):
    """coarse: steps of a filter's largest weight; below_zero: whether integers in the end stand for such numbers."""
    rng = np.random.default_rng(0)
    values = {
        "sx": np.array(0.05),
        "zx": np.uint8(128),
        "sr": np.array(0.1),
        "zr": np.uint8(0),
        "sd": np.array(0.2),
        "zd": np.uint8(128 if below_zero else 0),
        "t1": np.array(0.001),
        "t2": np.array(0.001),
    }
    for n, shape in ((1, (10, 3, 3, 3)), (2, (6, 10, 3, 3))):
        w = rng.standard_normal(shape) / 3
        scale = np.abs(w).max((1, 2, 3)) / coarse
        values |= {
            f"q{n}": np.rint(w / scale[:, None, None, None]).astype(np.int8),
            f"s{n}": scale,
            f"z{n}": np.zeros(shape[0], np.int8),
            f"i{n}": rng.integers(-100, 100, shape[0]).astype(np.int32),
        }
    return build(QDQ, {k: np.asarray(v) for k, v in values.items()})


def test_quantised_weights_are_refitted_and_stay_integers_of_the_same_scales():
    model, feeds = quantised(), {"x": mixed(64)}
    _, bare, refitted, found = pruned(model, feeds, 10)
    assert found.layers == 1
    before, after = (np.square(run(m, feeds) - run(model, feeds)).mean() for m in (bare, refitted))
    assert after < 0.5 * before
    cut, now = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (bare, refitted))
    assert now["q2"].dtype == np.int8
    assert (now["q2"] != cut["q2"]).any()
    assert (now["i2"] != cut["i2"]).any()
    np.testing.assert_array_equal(now["s2"], cut["s2"])
    assert [n.op_type for n in refitted.graph.node] == [n.op_type for n in bare.graph.node]


def test_in_front_of_integers_that_are_never_negative_a_refit_is_one_in_front_of_a_relu():
    model, feeds = quantised(below_zero=False), {"x": mixed(64)}
    _, bare, refitted, _ = pruned(model, feeds, 10)
    before, after = (np.square(run(m, feeds) - run(model, feeds)).mean() for m in (bare, refitted))
    assert after < 0.31 * before  # 0.34 where the integers themselves are the target


def test_whether_integers_can_say_the_refit_is_seen_to():
    model, feeds = quantised(coarse=2, below_zero=False), {"x": mixed(64)}
    _, bare, refitted, _ = pruned(model, feeds, 10)
    before, after = (np.square(run(m, feeds) - run(model, feeds)).mean() for m in (bare, refitted))
    assert after < 0.7 * before  # 0.83 where floats are fitted and then rounded


def test_a_layer_that_cannot_be_refitted_is_named_with_the_reason():
    text = "g (float[N, 6] x) => (float[N, 3] y) { a = MatMul (x, w0) r = Relu (a) b = Gemm <alpha = 0.5> (r, w1) "
    text += "s = Relu (b) c = MatMul (s, w2) t = Relu (c) y = MatMul (t, w3) }"
    rng = np.random.default_rng(0)
    shapes = {"w0": (6, 12), "w1": (12, 8), "w2": (8, 12), "w3": (12, 3)}
    model = build(text, {name: rng.standard_normal(shape) for name, shape in shapes.items()})
    found = pruned(model, {"x": rng.standard_normal((64, 6)).astype(np.float32)}, 12)[3]
    assert found.left == {"b": "more than W u + b"}
    assert found.layers == 2  # y, and c, whose inputs come from b
