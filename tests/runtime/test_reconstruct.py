"""Refits: what stays of a cut network makes up for what went."""

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.algebra.least_squares import Refit
from onnx_prune.passes.channels.affine import affine_consumers, write_refit
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.one_shot import refit_once
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.passes.selection.criteria import make_criterion
from onnx_prune.passes.selection.ranking import Evidence, rank_groups
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate, iterate_rows
from onnx_prune.runtime.measure.evaluate import divergence, outputs
from onnx_prune.runtime.measure.segments import Frontier
from onnx_prune.runtime.measure.sensitivity import measure_sensitivity, scaled_by_network
from onnx_prune.runtime.reconstruct import refit_sequentially
from onnx_prune.runtime.session import open_session

PLAIN = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 6, 6] x) => (float[N, 4] y)
<float[8, 3, 3, 3] w1, float[8] b1, float[6, 8, 3, 3] w2, float[6, 5, 2, 2] wt, float[5, 4] w3, float[4] b3> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  r = Relu (a)
  c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2)
  s = Relu (c)
  t = ConvTranspose <strides = [2, 2]> (s, wt)
  p = ReduceMean <axes = [2, 3], keepdims = 0> (t)
  m = MatMul (p, w3)
  y = Add (m, b3)
}
"""


def groups_of(model, batch=1):
    graph = load(model)
    return channel_groups(label_channels(graph, tensor_facts(graph)))


@pytest.fixture(scope="module")
def plain():
    """A small network whose second half of channels of `a` repeats the first half."""
    model = onnx.parser.parse_model(PLAIN)
    rng = np.random.default_rng(0)
    for value in model.graph.value_info:
        if value.name[0] in "wb":
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            values = rng.standard_normal(shape).astype(np.float32)
            if value.name in ("w1", "b1"):
                values[4:] = values[:4]
            model.graph.initializer.append(numpy_helper.from_array(values, value.name))
    del model.graph.value_info[:]
    return model


@pytest.fixture(scope="module")
def images():
    return {"x": np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)}


def run(model, feeds):
    (value,) = open_session(model).run(feeds).values()
    return value


def test_writing_the_weights_that_are_there_changes_nothing(plain, images):
    groups = groups_of(plain)
    graph = groups.labelled.graph.copy()
    found = list(affine_consumers(groups.labelled))
    assert [consumer.name for consumer in found] == ["a", "c", "t", "m"]
    for consumer in found:
        write_refit(graph, consumer, Refit(consumer.W, consumer.b))
    np.testing.assert_allclose(run(to_model(graph), images), run(plain, images), rtol=1e-5, atol=1e-5)


def test_a_bias_is_written_where_the_node_has_none(plain, images):
    groups = groups_of(plain)
    for consumer in affine_consumers(groups.labelled):
        graph = groups.labelled.graph.copy()
        write_refit(graph, consumer, Refit(consumer.W, consumer.b + 1))
        assert np.abs(run(to_model(graph), images) - run(plain, images)).max() > 1e-3


@pytest.mark.parametrize("kind", ["full", "sequential"])
def test_repeated_channels_go_without_any_loss(plain, images, kind):
    groups = groups_of(plain)
    group = next(g for g in groups.free if g.units == 8)
    removed = groups.removed_labels({group.name: [4, 5, 6, 7]})
    data = open_data(images, model_inputs(plain), batch=16)
    cut = apply_removal(groups.labelled, removed)
    lost = np.abs(run(to_model(cut), images) - run(plain, images)).max()
    if kind == "full":
        refit_once(
            groups.labelled, removed, cut, calibrate(groups.labelled, data, settings=Calibration(positions=99)), "full"
        )
    else:
        refit_sequentially(groups.labelled, removed, cut, data, Calibration(positions=99))
    assert lost > 0.1
    assert np.abs(run(to_model(cut), images) - run(plain, images)).max() < 0.02 * lost


def test_segments_show_what_the_whole_cut_network_computes(plain, images):
    groups = groups_of(plain)
    removed = groups.removed_labels({g.name: range(g.units // 2) for g in groups.free})
    cut = apply_removal(groups.labelled, removed)
    data = open_data(images, model_inputs(plain), batch=16)
    taps, settings = find_taps(groups.labelled), Calibration(positions=4)
    frontier = Frontier(cut, data)
    for name in ("c", "t", "m"):
        own = taps.only([name])
        piecewise = [rows[0] for rows in frontier.rows(frontier.number(name), own, settings)]
        whole = [rows[0] for rows in iterate_rows(to_model(cut), own, data, settings)]
        for a, b in zip(piecewise, whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def digits():
    model = onnx.load(digits_model())
    groups = groups_of(model)
    data = open_data(str(digits_data()[1]), model_inputs(model), samples=256, batch=64)
    return model, groups, data, calibrate(groups.labelled, data)


def test_each_refit_is_nearer_to_the_original_than_the_one_before(digits):
    model, groups, data, moments = digits
    rankings = rank_groups(make_criterion("thinet"), Evidence(groups, moments=moments))
    removed = groups.removed_labels({g.name: rankings[g.name].order[: g.units // 2] for g in groups.free})
    reference = list(outputs(model, data))
    errors = []
    for kind in ("none", "channel", "full", "sequential"):
        cut = apply_removal(groups.labelled, removed)
        if kind == "sequential":
            refit_sequentially(groups.labelled, removed, cut, data)
        elif kind != "none":
            refit_once(groups.labelled, removed, cut, moments, kind)
        errors.append(divergence(to_model(cut), reference, data).value)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_sensitivity_never_falls_and_is_in_units_of_the_output(digits):
    _, groups, data, moments = digits
    rankings = rank_groups(make_criterion("thinet"), Evidence(groups, moments=moments))
    harms = scaled_by_network(rankings, measure_sensitivity(groups, rankings, moments, data))
    for name, ranking in harms.items():
        assert (np.diff(ranking.harm) >= 0).all()
        assert (ranking.order == rankings[name].order).all()
    assert max(r.harm[-1] for r in harms.values()) < 100
