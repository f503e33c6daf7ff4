"""Channel placers: layers of a residual stream lose filters of their own, the stream keeps width and constants."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_prune import models
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.errors import ProofError, UsageError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.rewrite.place import place_constants, stream_convolutions, with_placers, without_idle_placers
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.plans.plan import Plan
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof.prove import prove_cut

GONE = {"conv1": (0, 5), "layer1.1.conv2": (0, 3, 7), "layer2.0.conv2": (1, 31), "layer3.2.conv2": (63,)}


def images(count=2, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32)).astype(np.float32)


def computed(model, x):
    return ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})[0]


def without_filters(model, gone):
    """The model with these filters at zero, by hand: what soft pruning leaves behind."""
    zeroed = onnx.ModelProto()
    zeroed.CopyFrom(model)
    for tensor in zeroed.graph.initializer:
        layer = tensor.name.removesuffix(".weight")
        if layer in gone:
            values = numpy_helper.to_array(tensor).copy()
            values[list(gone[layer])] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return zeroed


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: models.resnet_cifar(20), ["conv1", *(f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in range(3))]),
        (
            models.resnet50,
            [f"layer{s}.{b}.conv3" for s, count in enumerate((3, 4, 6, 3), 1) for b in range(count)],
        ),
        (models.vgg16_cifar, []),
    ],
)
def test_placers_stand_behind_what_adds_to_a_stream_and_not_behind_projections(build, names):
    analysis = analyse(build())
    assert [analysis.graph.gs.nodes[number].name for number in stream_convolutions(analysis.groups)] == names


@pytest.fixture(scope="module", params=[False, True], ids=["normalised", "folded"])
def placed(request):
    return analyse(with_placers(analyse(models.resnet_cifar(20, folded=request.param)).groups))


@pytest.fixture(scope="module")
def plain(placed):
    folded = all(node.op_type != "BatchNormalization" for node in placed.graph.source.graph.node)
    return models.resnet_cifar(20, folded=folded)


def test_the_model_computes_what_it_did_and_costs_what_it_did(placed, plain):
    np.testing.assert_array_equal(computed(placed.graph.source, images()), computed(plain, images()))
    cost = analyse(plain).cost
    assert placed.cost.macs(placed.cost.units) == cost.macs(cost.units)


def test_filters_of_one_layer_go_the_stream_stays_and_their_constants_come_back(placed, plain):
    groups = placed.groups
    removed = groups.removed_labels(GONE)
    cut = apply_removal(groups.labelled, removed)
    assert prove_cut(groups, removed, to_model(cut), placed.feeds).error < 1e-6
    assert place_constants(groups.labelled, removed, cut) == sum(map(len, GONE.values()))
    model = to_model(cut)
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    assert shapes["layer1.1.conv2.weight"] == (13, 16, 3, 3)
    assert shapes["layer1.2.conv1.weight"] == (16, 16, 3, 3)
    assert shapes["conv1.weight"] == (14, 3, 3, 3)
    soft = computed(without_filters(plain, GONE), images())
    np.testing.assert_allclose(computed(model, images()), soft, rtol=0, atol=2e-6 * np.abs(soft).max())
    bare = computed(to_model(apply_removal(groups.labelled, removed)), images())
    assert np.abs(bare - soft).max() > 1e-2 * np.abs(soft).max()  # without them it is another network


def test_where_variances_are_small_the_constants_have_the_norm_s_epsilon():
    """At 1e-4 the epsilon of 1e-5 takes a twentieth off what a filter of zeros gives."""
    model = models.resnet_cifar(20)
    variance = next(tensor for tensor in model.graph.initializer if tensor.name == "layer3.2.bn2.running_var")
    variance.CopyFrom(numpy_helper.from_array(np.full(variance.dims, 1e-4, np.float32), variance.name))
    placed = analyse(with_placers(analyse(model).groups))
    gone = {"layer3.2.conv2": GONE["layer3.2.conv2"]}
    removed = placed.groups.removed_labels(gone)
    cut = apply_removal(placed.groups.labelled, removed)
    assert place_constants(placed.groups.labelled, removed, cut) == 1
    soft = computed(without_filters(model, gone), images())
    assert np.isfinite(soft).all()
    np.testing.assert_allclose(computed(to_model(cut), images()), soft, rtol=0, atol=2e-6 * np.abs(soft).max())


def test_the_multiplications_are_those_of_the_kept_filters(placed):
    saved = 3 * 9 * 1024 * 2 + 16 * 9 * 1024 * 3 + 32 * 9 * 256 * 2 + 64 * 9 * 64
    units = placed.cost.units
    assert placed.cost.macs(units) - placed.cost.macs(placed.cost.kept(GONE)) == saved


def test_a_channel_at_a_wrong_place_is_refused(placed):
    groups = placed.groups
    removed = groups.removed_labels(GONE)
    model = to_model(apply_removal(groups.labelled, removed))
    at = next(t for t in model.graph.initializer if t.name.endswith(".at") and 13 in numpy_helper.to_array(t))
    wrong = numpy_helper.to_array(at).copy()
    wrong[[4, 5]] = wrong[[5, 4]]
    at.CopyFrom(numpy_helper.from_array(wrong, at.name))
    with pytest.raises(ProofError):
        prove_cut(groups, removed, model, placed.feeds)


def test_idle_placers_are_taken_away(placed, plain):
    left = without_idle_placers(placed.graph.source)
    assert [n.op_type for n in left.graph.node] == [n.op_type for n in plain.graph.node]
    assert {t.name for t in left.graph.initializer} == {t.name for t in plain.graph.initializer}
    onnx.checker.check_model(left, full_check=True)


def test_old_opsets_keep_the_amounts_of_a_pad_as_an_attribute():
    model = models.resnet_cifar(20, "B", folded=True)
    model.opset_import[0].version = 10
    placed = with_placers(analyse(model).groups)
    onnx.checker.check_model(placed, full_check=True)
    np.testing.assert_array_equal(computed(placed, images()), computed(model, images()))


def test_soft_pruning_s_cut_of_resnet56_is_met_by_every_convolution_by_itself(tmp_path):
    """The paper's 52.6 %: 40 % of the filters of every convolution, streams of 16, 32 and 64 channels."""
    given = {"preset": "sfp", "calibration": "none", "reconstruct": "none", "measure": False}
    result = onnx_prune.prune(models.resnet_cifar(56), budget=Budget(macs=0.474), **given)
    assert 1 - result.report.macs[1] / result.report.macs[0] == pytest.approx(0.526, abs=0.001)
    layers = {t.name: tuple(t.dims) for t in result.model.graph.initializer if len(t.dims) == 4 and t.dims[2] == 3}
    assert {shape[0] for shape in layers.values()} <= {9, 10, 19, 20, 38, 39, 40}  # of 16, 32, 64
    assert {shape[1] for name, shape in layers.items() if name.endswith("conv1.weight")} == {3, 16, 32, 64}
    sides = {"1": 32, "2": 16, "3": 8}
    macs = sum(np.prod(shape) * sides[re.sub(r"^conv1", "layer1", name)[5]] ** 2 for name, shape in layers.items())
    assert len(layers) == 55
    assert result.report.macs[1] == macs + 64 * 10
    file = result.plan.save(tmp_path / "plan.json")
    assert json.loads(file.read_text())["placed"] is True
    assert Plan.load(file) == result.plan
    again = onnx_prune.apply(models.resnet_cifar(56), file, measure=False)
    assert again.report.macs == result.report.macs
    assert [t.dims for t in again.model.graph.initializer] == [t.dims for t in result.model.graph.initializer]


def test_the_result_is_pruned_and_placed_again():
    """What is left of a placer is read like any other graph."""
    given = {"preset": "sfp", "calibration": "none", "reconstruct": "none", "measure": False, "align": 1}
    first = onnx_prune.prune(models.digits_model(), budget=Budget(macs=0.8), **given)
    second = onnx_prune.prune(first.model, budget=Budget(macs=0.8), **given)
    assert second.report.proof < 1e-5
    kept = {row.name: row.after for row in second.report.groups}
    assert kept["layer1.0.conv2"] < {row.name: row.after for row in first.report.groups}["layer1.0.conv2"]


def test_weights_beside_the_model_are_refused(tmp_path):
    onnx.save(models.resnet_cifar(20), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(UsageError, match="gets no channel placers"):
        onnx_prune.prune(tmp_path / "m.onnx", preset="sfp", calibration="synthetic", samples=8)
