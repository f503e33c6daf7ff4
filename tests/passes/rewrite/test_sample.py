"""Channel samplers: inputs that one layer alone loses, proven, written in a plan, and gone where they pick all."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_prune import models
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.errors import ProofError, ReadError, UsageError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.rewrite.sample import branch_starts, with_samplers, without_idle_samplers
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.plans.plan import Plan
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof.prove import prove_cut


@pytest.mark.parametrize(
    ("build", "starts"),
    [
        (lambda: models.resnet_cifar(20), [f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in range(3)]),
        (
            models.resnet50,
            [f"layer{s}.{b}.conv1" for s, count in enumerate((3, 4, 6, 3), 1) for b in range(count)],
        ),
        (models.vgg16_cifar, []),
    ],
)
def test_samplers_stand_before_the_first_layer_of_each_branch_and_not_before_projections(build, starts):
    analysis = analyse(build())
    assert [analysis.graph.gs.nodes[number].name for number in branch_starts(analysis.groups)] == starts


@pytest.fixture(scope="module")
def sampled():
    return analyse(with_samplers(analyse(models.resnet_cifar(20)).groups))


def test_the_model_computes_what_it_did_and_costs_what_it_did(sampled):
    model = models.resnet_cifar(20)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    before, after = (ReferenceEvaluator(m).run(None, {"input": x})[0] for m in (model, sampled.graph.source))
    np.testing.assert_array_equal(before, after)
    plain = analyse(model).cost
    assert sampled.cost.macs(sampled.cost.units) == plain.macs(plain.units)


def test_inputs_of_one_layer_go_and_the_stream_stays(sampled):
    groups = sampled.groups
    gone = {"layer1.1.conv1:in": (0, 3, 7), "layer2.0.conv1:in": (1,), "layer1.1.conv1": (2, 4)}
    removed = groups.removed_labels(gone)
    model = to_model(apply_removal(groups.labelled, removed))
    assert prove_cut(groups, removed, model, sampled.feeds).error < 1e-6
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    assert shapes["layer1.1.conv1.weight"] == (14, 13, 3, 3)
    assert shapes["layer1.1.conv2.weight"] == (16, 14, 3, 3)
    assert groups["conv1"].pinned is not None
    kept = sampled.cost.kept(gone)
    assert sampled.cost.macs(kept) == analyse(model).cost.macs(analyse(model).cost.units)


def test_a_sampler_that_picks_a_wrong_channel_is_refused(sampled):
    groups = sampled.groups
    removed = groups.removed_labels({"layer1.1.conv1:in": (0, 3, 7)})
    model = to_model(apply_removal(groups.labelled, removed))
    (indices,) = [t for t in model.graph.initializer if "sampler" in t.name and t.dims[0] == 13]
    wrong = numpy_helper.to_array(indices).copy()
    wrong[4] += 2
    indices.CopyFrom(numpy_helper.from_array(wrong, indices.name))
    with pytest.raises(ProofError):
        prove_cut(groups, removed, model, sampled.feeds)


def test_samplers_that_pick_all_are_taken_away(sampled):
    source = sampled.graph.source
    sizes = {name: shape[1] for name, shape in sampled.groups.labelled.facts.shapes.items() if len(shape) > 1}
    plain = without_idle_samplers(source, sizes)
    assert [n.op_type for n in plain.graph.node] == [n.op_type for n in models.resnet_cifar(20).graph.node]
    onnx.checker.check_model(plain, full_check=True)


def test_a_plan_says_that_there_are_samplers_and_is_applied_again(tmp_path):
    calibration = str(models.digits_data()[1])
    given = {"preset": "channel-pruning", "calibration": calibration, "samples": 64, "measure": False}
    result = onnx_prune.prune(models.digits_model(), budget=Budget(macs=0.6), **given)
    picked = {row.name: row.after for row in result.report.groups if row.name.endswith(":in")}
    assert picked
    assert all(after < 32 for after in picked.values())
    gathers = [n for n in result.model.graph.node if n.op_type == "Gather"]
    assert len(gathers) == len(picked)
    assert result.report.macs[1] <= 0.6 * result.report.macs[0]
    assert result.plan.reconstruct == "sequential"
    file = result.plan.save(tmp_path / "plan.json")
    assert json.loads(file.read_text())["sampled"] is True
    assert Plan.load(file) == result.plan
    again = onnx_prune.apply(models.digits_model(), file, measure=False)
    shapes = [{t.name: tuple(t.dims) for t in m.graph.initializer} for m in (again.model, result.model)]
    assert shapes[0].items() <= shapes[1].items()
    assert again.report.proof < 1e-6
    assert again.report.macs == result.report.macs
    file.write_text(file.read_text().replace('"sampled": true', '"sampled": 1'))
    with pytest.raises(ReadError, match='"sampled" is 1'):
        Plan.load(file)


def test_weights_beside_the_model_are_refused(tmp_path):
    model = models.resnet_cifar(20)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(UsageError, match="gets no channel samplers"):
        onnx_prune.prune(tmp_path / "m.onnx", preset="channel-pruning", calibration="synthetic", samples=8)
