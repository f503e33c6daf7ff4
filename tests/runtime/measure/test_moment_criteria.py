"""Criteria on moments, from the graph to the ranking, against what they say on the activations themselves."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.algebra.removal import refit_harm
from onnx_prune.passes.channels.affine import affine_consumers
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.passes.selection.allocate import select
from onnx_prune.passes.selection.criteria import criteria, make_criterion
from onnx_prune.passes.selection.criteria.moments._consumers import group_objectives
from onnx_prune.passes.selection.criteria.moments.thinet import Thinet
from onnx_prune.passes.selection.ranking import Evidence, rank_groups
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate, sample_rows

ON_MOMENTS = (
    "apoz",
    "channel-pruning",
    "fluctuation",
    "lasso",
    "mean-activation",
    "nisp",
    "obs",
    "thinet",
    "thinet-omp",
)


@pytest.fixture(scope="module")
def digits():
    model = onnx.load(digits_model())
    graph = load(model)
    groups = channel_groups(label_channels(graph, tensor_facts(graph)))
    data = open_data(str(digits_data()[1]), model_inputs(model), samples=128, batch=64)
    how = Calibration(activations=True)
    return groups, data, how, calibrate(groups.labelled, data, settings=how)


@pytest.mark.parametrize("word", ON_MOMENTS)
def test_every_unit_is_ranked_once_and_harm_never_falls(digits, word):
    groups, _, _, moments = digits
    for group in groups.free:
        ranking = rank_groups(make_criterion(word), Evidence(groups, moments=moments))[group.name]
        assert sorted(ranking.order.tolist()) == list(range(group.units))
        assert (np.diff(ranking.harm) >= 0).all()


def test_the_list_of_criteria_is_complete():
    on_gradients = {"ccp", "ccp-ac", "fisher", "taylor"}  # tests/runtime/torch/gates/test_gradients.py
    by_training = {"dcp", "dcp-adapt"}  # tests/runtime/torch/discrimination
    assert set(ON_MOMENTS) | on_gradients | by_training | {"bn-scale", "fpgm", "l1", "l2", "random"} == set(criteria())


def test_without_moments_the_error_says_what_to_give(digits):
    groups = digits[0]
    with pytest.raises(UsageError, match="give --calibration"):
        rank_groups(make_criterion("thinet"), Evidence(groups))


def one_reader(groups):
    """A group that one consumer reads, and that consumer."""
    for group in groups.free:
        mine = [
            x for x in affine_consumers(groups.labelled) if np.isin(groups.component[x.inputs], group.components).any()
        ]
        if len(mine) == 1 and len(mine[0].inputs) == group.units:
            return group, mine[0]
    raise AssertionError("no such group")


def test_thinet_is_the_paper_s_greedy_on_the_sampled_rows(digits):
    groups, data, how, moments = digits
    group, reader = one_reader(groups)
    (rows,) = sample_rows(groups.labelled.graph.source, find_taps(groups.labelled).only([reader.name]), data, how)
    patches = rows.reshape(len(rows), group.units, -1).astype(np.float64)
    contributions = np.einsum("ick,jck->ijc", patches, reader.W).reshape(-1, group.units)
    chosen = []
    for _ in range(group.units // 2):
        lost = contributions[:, chosen].sum(1, keepdims=True) + contributions
        harm = np.square(lost).sum(0)
        harm[chosen] = np.inf
        chosen.append(int(harm.argmin()))
    found = Thinet(centred=False).rank(group, Evidence(groups, moments=moments)).order[: len(chosen)]
    assert found.tolist() == chosen
    assert Thinet(centred=False).rank(group, Evidence(groups, moments=moments)).order.tolist() != list(
        range(group.units)
    )


def test_apoz_counts_zeros_where_the_group_is_read(digits):
    groups, data, _, moments = digits
    group, reader = one_reader(groups)
    ranking = make_criterion("apoz").rank(group, Evidence(groups, moments=moments))
    relu = values_of(groups.labelled.graph.source, [reader.data], data)[reader.data]
    nonzero = (relu != 0).mean((0, 2, 3))
    np.testing.assert_array_equal(ranking.order, np.argsort(nonzero, kind="stable"))
    np.testing.assert_allclose(ranking.harm, np.cumsum(np.sort(nonzero)), rtol=1e-5)


POOLED = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 8, 8] x) => (float[N, 4] y)
<float[6,3,3,3] w1, float[6] b1, float[5,3,3,3] w2, float[5] b2, float[7,11,1,1] w3, float[7] b3, float[4,28] w4> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  ra = Relu (a)
  pa = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (ra)
  c = Conv <pads = [1, 1, 1, 1]> (x, w2, b2)
  rc = Relu (c)
  pc = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (rc)
  both = Concat <axis = 1> (pa, pc)
  d = Conv (both, w3, b3)
  rd = Relu (d)
  pd = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (rd)
  f = Flatten (pd)
  y = Gemm <transB = 1> (f, w4)
}
"""


def values_of(model, names, data):
    """Tensors of the model on all of the data, by onnx's own evaluator."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    run = ReferenceEvaluator(shown)
    found = [run.run(list(names), batch.feeds) for batch in data]
    return dict(zip(names, map(np.concatenate, zip(*found, strict=True)), strict=True))


def drawn(text, rng):
    """The model of that text, with numbers for the weights that it declares."""
    model = onnx.parser.parse_model(text)
    for value in model.graph.value_info:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.name[0] in "wb" and value.name != "both":
            numbers = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(numbers, value.name))
    del model.graph.value_info[:]
    return model


def groups_of(model, shape):
    graph = load(model)
    return channel_groups(label_channels(graph, tensor_facts(graph, {"x": shape})))


@pytest.mark.parametrize("word", ["apoz", "mean-activation"])
def test_activations_are_those_behind_the_relu_not_behind_the_pool(word):
    rng = np.random.default_rng(0)
    groups = groups_of(drawn(POOLED, rng), (1, 3, 8, 8))
    model = groups.labelled.graph.source
    data = [Batch({"x": rng.standard_normal((5, 3, 8, 8)).astype(np.float32)}, None) for _ in range(2)]
    moments = calibrate(groups.labelled, data, settings=Calibration(activations=True))
    tensors = ("ra", "rc", "rd", "pa", "pc", "pd")
    shown = values_of(model, tensors, data)
    for group, behind_relu, behind_pool in zip(groups.free, tensors[:3], tensors[3:], strict=True):
        ranking = make_criterion(word).rank(group, Evidence(groups, moments=moments))
        score = (lambda z: (z != 0).mean((0, 2, 3))) if word == "apoz" else (lambda z: z.mean((0, 2, 3)))
        wanted = np.sort(score(shown[behind_relu]))
        np.testing.assert_allclose(ranking.harm, np.cumsum(wanted), rtol=1e-5)
        assert ranking.order.tolist() == np.argsort(score(shown[behind_relu]), kind="stable").tolist()
        assert word != "apoz" or np.abs(wanted - np.sort(score(shown[behind_pool]))).max() > 0.05


def test_swaps_never_raise_the_error_of_what_is_selected(digits):
    groups, _, _, moments = digits
    evidence = Evidence(groups, moments=moments)
    kept = np.array([g.units // 2 if g.pinned is None else g.units for g in groups.groups])
    plain, swapped = (select(groups, kept, make_criterion(word), evidence) for word in ("obs", "obs:swaps=30"))
    for group in groups.free:
        found = group_objectives(group, evidence, centred=True)
        rest = np.setdiff1d(np.arange(found[0].W.shape[1]), np.arange(group.units))
        errors = []
        for removed in (plain[group.name], swapped[group.name]):
            order = np.concatenate([np.array(removed), np.setdiff1d(np.arange(group.units), removed)])
            assert not np.isin(order, rest).any()
            errors.append(refit_harm(found, order, 1e-3)[len(removed) - 1])
        assert len(plain[group.name]) == len(swapped[group.name])
        assert errors[1] <= errors[0] * (1 + 1e-9)
    assert plain != swapped


TWO_READERS = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 3, 3] x) => (float[N, 4, 3, 3] y, float[N, 2, 3, 3] z)
<float[8,3,1,1] w1, float[8] b1, float[4,8,1,1] w2, float[2,8,1,1] w3> {
  a = Conv (x, w1, b1)
  r = Relu (a)
  y = Conv (r, w2)
  z = Conv (r, w3)
}
"""


def test_of_several_readers_each_counts_its_relative_error():
    """One reader is thirty times as loud as the other; by absolute errors it alone would decide."""
    model = drawn(TWO_READERS, np.random.default_rng(0))
    w = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(numpy_helper.from_array(w["w2"] * np.float32(30), "w2"))
    groups = groups_of(model, (1, 3, 3, 3))
    x = np.random.default_rng(1).standard_normal((50, 3, 3, 3)).astype(np.float32)
    moments = calibrate(groups.labelled, [Batch({"x": x}, None)], settings=Calibration(positions=9))
    X = x.transpose(0, 2, 3, 1).reshape(-1, 3) @ w["w1"][:, :, 0, 0].T + w["b1"]
    parts = [np.maximum(X, 0)[:, None] * W[None, :, :, 0, 0] for W in (30 * w["w2"], w["w3"])]  # (rows, filters, 8)
    (group,) = groups.free
    found = Thinet(centred=False).rank(group, Evidence(groups, moments=moments)).order.tolist()
    orders = []
    for weights in ([1 / np.square(p.sum(2)).sum() for p in parts], [1, 1]):
        gone = []
        while len(gone) < 8:
            harm = np.zeros(8)
            for part, weight in zip(parts, weights, strict=True):
                harm += weight * np.square(part[:, :, gone].sum(2, keepdims=True) + part).sum((0, 1))
            harm[gone] = np.inf
            gone.append(int(harm.argmin()))
        orders.append(gone)
    assert found[:6] == orders[0][:6]
    assert orders[0][:6] != orders[1][:6], "the claim can fail"
