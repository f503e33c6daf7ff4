"""Joint refit of a cut network: nearer to the original than the layers one by one, within what a refit may change."""

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.rewrite.refit_scope import outside_refit
from onnx_prune.passes.selection.plans.planned import removed_from_plan
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.closeness import closeness
from onnx_prune.runtime.reconstruct import refit_sequentially
from onnx_prune.runtime.refit_jointly import refit_jointly
from onnx_prune.runtime.torch.joint.fit import Steps

TEST, CALIBRATION = (str(path) for path in models.digits_data())
STEPS = Steps(2, epochs=4, rate=3e-3)


@pytest.fixture(scope="module")
def original():
    return onnx.load(models.digits_model())


@pytest.fixture(scope="module")
def groups(original):
    return analyse(original).groups


@pytest.fixture(scope="module")
def data(original):
    return open_data(CALIBRATION, model_inputs(original), samples=256)


@pytest.fixture(scope="module")
def removed(original, groups):
    settings = {"calibration": CALIBRATION, "align": 1, "measure": False, "reconstruct": "none"}
    plan = onnx_prune.prune(original, budget=onnx_prune.Budget(macs=0.2), **settings).plan
    return removed_from_plan(groups, plan)


def fitted(groups, removed, data):
    cut = apply_removal(groups.labelled, removed)
    refit_sequentially(groups.labelled, removed, cut, data)
    return cut


def distance(original, graph):
    return closeness(original, [to_model(graph)], open_data(TEST, model_inputs(original)))[0].distance


def test_layers_together_come_nearer_to_the_original_on_images_that_nobody_saw(original, groups, removed, data):
    cut = fitted(groups, removed, data)
    before = distance(original, cut)
    found = refit_jointly(groups.labelled, removed, cut, data, STEPS)
    assert 0 < found.nearer <= found.stretches
    assert distance(original, cut) < 0.9 * before


def test_nothing_changes_but_what_a_refit_may_change(groups, removed, data):
    bare = to_model(apply_removal(groups.labelled, removed))
    cut = fitted(groups, removed, data)
    refit_jointly(groups.labelled, removed, cut, data, Steps(2, epochs=1, rate=1e-3))
    model = to_model(cut)
    assert not list(outside_refit(groups.labelled, cut, bare, model))
    spoilt = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    spoilt.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(spoilt) + 1, spoilt.name))
    assert list(outside_refit(groups.labelled, cut, bare, model))


def test_steps_that_lead_away_leave_every_weight_as_it_was(groups, removed, data):
    cut = fitted(groups, removed, data)
    before = weights(cut)
    found = refit_jointly(groups.labelled, removed, cut, data, Steps(2, epochs=1, rate=100.0))
    assert found.nearer == 0
    after = weights(cut)
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def weights(graph):
    return {t.name: onnx.numpy_helper.to_array(t) for t in to_model(graph).graph.initializer}


def test_prune_fits_blocks_and_says_how_many_are_nearer(original):
    settings = {"calibration": CALIBRATION, "align": 1, "measure": False, "budget": onnx_prune.Budget(macs=0.3)}
    result = onnx_prune.prune(original, reconstruct="blocks:layers=2,epochs=2", **settings)
    assert "blocks nearer by a joint refit" in str(result.report.refit)
    assert result.plan.reconstruct == "blocks:layers=2,epochs=2"


def test_a_joint_refit_that_leads_the_whole_away_is_left_out(original, monkeypatch):
    from onnx_prune.runtime import refit_jointly as module

    def spoilt(labelled, removed, cut, *_, **__):
        for consumer in module.affine_consumers(labelled):
            for name, values in module.own_constants(cut, consumer.uses).items():
                module.set_constant(cut.gs.tensors()[name], values * 3)
        return module.Joint(1, 1)

    monkeypatch.setattr(module, "refit_jointly", spoilt)
    settings = {"calibration": CALIBRATION, "align": 1, "measure": False, "budget": onnx_prune.Budget(macs=0.3)}
    one, other = (onnx_prune.prune(original, reconstruct=word, **settings) for word in ("sequential", "blocks"))
    assert "with a joint refit the outputs are farther" in str(other.report.refit)
    assert one.model.graph.initializer == other.model.graph.initializer
