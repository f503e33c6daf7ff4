"""A criterion that trains: its weights come into the cut model, its own end needs no budget, plans are made again."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.pipeline.training.in_turns import prune_and_finetune
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.torch.discrimination import stages
from onnx_prune.runtime.torch.training.recipe import Recipe
from onnx_prune.runtime.torch.training.run import Examples

TEST, CALIBRATION = (str(path) for path in models.digits_data())
QUICK = {"calibration": CALIBRATION, "samples": 160, "measure": False}
DCP = "dcp:passes=1,at_once=4"


def logits(model, count=64):
    return np.asarray(open_session(model).run({"input": np.load(TEST)["input"][:count]})["logits"])


def values(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def run():
    """A run, and what the stages have found in it."""
    found, select = [], stages.select_discriminating

    def noted(*args, **named):
        found.append(select(*args, **named))
        return found[-1]

    patch = pytest.MonkeyPatch()
    patch.setattr(stages, "select_discriminating", noted)
    result = onnx_prune.prune(models.digits_model(), budget=0.6, preset="dcp", criterion=DCP, evaluate=TEST, **QUICK)
    patch.undo()
    return result, found[0]


def test_the_cut_model_has_the_weights_that_were_trained(run):
    result, found = run
    assert {name: gone for name, gone in result.plan.removed.items() if gone} == found.removed
    given, trained, cut = (values(m) for m in (onnx.load(models.digits_model()), found.model, result.model))
    rows = [unit for unit in range(32) if unit not in found.removed["layer1.0.conv1"]]
    np.testing.assert_array_equal(cut["layer1.0.conv1.weight"], trained["layer1.0.conv1.weight"][rows])
    np.testing.assert_array_equal(cut["layer1.0.conv2.weight"], trained["layer1.0.conv2.weight"][:, rows])
    assert (trained["fc.weight"] != given["fc.weight"]).all()
    np.testing.assert_allclose(logits(result.model), logits(found.model), rtol=0, atol=1e-4)
    assert result.report.proof < 1e-5
    assert result.report.score[0] == pytest.approx(0.9944, abs=1e-3)  # the given network's, not the trained one's
    assert result.report.score[1] > 0.9


def test_the_plan_is_made_again_on_the_given_network(run):
    result, _ = run
    assert (result.plan.criterion, result.plan.allocation, result.plan.reconstruct) == (DCP, "uniform", "none")
    again = onnx_prune.apply(models.digits_model(), result.plan, measure=False)
    assert again.report.macs == result.report.macs


def test_what_ends_by_itself_needs_no_budget_and_heeds_one():
    asked = [("dcp-adapt:passes=0,at_once=8", None), ("dcp-adapt:passes=0,at_once=8", 0.5)]
    asked.append(("dcp-adapt:passes=0,at_once=8,tolerance=0.3", None))
    free, tight, loose = (
        onnx_prune.prune(models.digits_model(), budget=budget, preset="dcp-adapt", criterion=criterion, **QUICK)
        for criterion, budget in asked
    )
    shares = [result.report.macs[1] / result.report.macs[0] for result in (free, tight, loose)]
    assert shares[1] <= 0.5 < shares[0]
    assert shares[2] < shares[0]
    cut = {row.name for row in loose.report.groups if row.after < row.before}
    assert cut <= {"layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1"}


def test_under_a_budget_one_threshold_gives_each_layer_a_width_of_its_own():
    """`dcp` keeps the same share everywhere; what ends by itself keeps what the loss of each layer asks for."""
    even, own = (
        onnx_prune.prune(
            models.digits_model(), budget=0.5, preset=preset, criterion=f"{preset}:passes=0,at_once=4", **QUICK
        )
        for preset in ("dcp", "dcp-adapt")
    )
    shares = [
        {row.name: row.after / row.before for row in result.report.groups if row.after < row.before}
        for result in (even, own)
    ]
    assert max(shares[0].values()) - min(shares[0].values()) < 0.05
    assert max(shares[1].values()) - min(shares[1].values()) > 0.1
    before, after = own.report.macs
    assert 0.45 < after / before <= 0.5


def test_several_budgets_are_each_cut_from_their_own_network():
    swept = onnx_prune.sweep(models.digits_model(), [0.7, 0.5], preset="dcp", criterion=DCP, **QUICK)
    heads = [values(point.result.model)["fc.weight"] for point in swept.points]
    assert (heads[0] != heads[1]).any()
    assert all(point.result.report.proof < 1e-5 for point in swept.points)


def test_what_was_chosen_is_fine_tuned():
    trained = prune_and_finetune(
        models.digits_model(), Examples(CALIBRATION, TEST), Recipe(epochs=1, batch=100, labels=1.0),
        budget=Budget(macs=0.6), preset="dcp", criterion="dcp:at_once=8,passes=0", samples=160, measure=False,
    )  # fmt: skip
    assert trained.result.report.macs[1] <= 0.6 * trained.result.report.macs[0]
    assert trained.rounds[0].epochs[-1].score > 0.9


def test_it_needs_data():
    with pytest.raises(UsageError, match="'dcp' needs a training of the network"):
        onnx_prune.prune(models.digits_model(), preset="dcp", calibration="none")


@pytest.mark.parametrize("batch", [None, 1, 4, 8])
def test_sensitivity_counts_images_whatever_the_batch(batch, monkeypatch):
    from onnx_prune.pipeline import measure

    model = onnx.load(models.digits_model())
    for value in (*model.graph.input, *model.graph.output) if batch else ():
        value.type.tensor_type.shape.dim[0].CopyFrom(onnx.TensorShapeProto.Dimension(dim_value=batch))
    seen, own = [], measure.measure_sensitivity

    def noted(groups, rankings, moments, data, **named):
        batches = list(data)
        seen.append([b.size for b in batches])
        return own(groups, rankings, moments, batches, **named)

    monkeypatch.setattr(measure, "measure_sensitivity", noted)
    settings = {"calibration": {"input": np.load(CALIBRATION)["input"][:96]}, "measure": False, "reconstruct": "none"}
    onnx_prune.prune(model, budget=0.7, allocation="sensitivity", criterion="l1", **settings)
    assert sum(seen[0]) == 64  # few images, and quickly run: as many as tell, not a number of batches
    assert batch is None or set(seen[0]) == {batch}
