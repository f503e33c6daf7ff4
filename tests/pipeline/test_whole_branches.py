"""Blocks that go entirely, from the plan to the file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.plans.plan import Plan
from onnx_prune.passes.selection.plans.planned import make_plan

GONE = ("layer1.0.conv1", "layer1.1.conv1")
TEST, CALIBRATION = models.digits_data()


@pytest.fixture(scope="module")
def analysis():
    return onnx_prune.inspect(models.digits_model())


def plan_without(analysis, names):
    removed = {name: tuple(range(analysis.groups[name].units)) for name in names}
    budget = onnx_prune.Budget(macs=0.5)
    return make_plan(analysis.cost, removed, budget, criterion="l2", allocation="error")


def test_a_plan_says_all_units_and_is_redone(analysis, tmp_path):
    plan = plan_without(analysis, GONE)
    plan.save(tmp_path / "plan.json")
    rows = {g["name"]: g for g in json.loads((tmp_path / "plan.json").read_text())["groups"]}
    assert rows[GONE[0]]["removed"] == list(range(rows[GONE[0]]["units"]))
    again = Plan.load(tmp_path / "plan.json")
    assert again == plan
    result = onnx_prune.apply(models.digits_model(), again, measure=False)
    assert result.report.gone == GONE
    saved = result.save(tmp_path / "cut.onnx")
    cut = onnx_prune.inspect(saved)
    assert result.report.macs[1] == plan.macs[1] == cut.cost.macs(cut.cost.units)
    assert result.report.params[1] == cut.cost.params(cut.cost.units)
    assert not set(GONE) & {g.name for g in cut.groups.groups}


def test_a_plan_is_redone_on_another_checkpoint(analysis):
    other = onnx.load(models.digits_model())
    rng = np.random.default_rng(0)
    for tensor in other.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            values = values * rng.uniform(0.9, 1.1, values.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    result = onnx_prune.apply(other, plan_without(analysis, GONE), measure=False)
    assert result.report.gone == GONE
    assert result.report.proof < 1e-5


def test_a_plan_that_would_leave_nothing_is_refused(analysis):
    with pytest.raises(UsageError, match=r"cannot go: .*\n.*all units of conv1") as caught:
        onnx_prune.apply(models.digits_model(), plan_without(analysis, ["conv1"]), measure=False)
    assert caught.value.exit_code == 2
    pinned = replace(plan_without(analysis, GONE), slices=None)
    assert onnx_prune.apply(models.digits_model(), pinned, measure=False).report.gone == GONE


@pytest.mark.parametrize("keep_blocks", [False, True])
def test_blocks_go_where_harm_is_measured_unless_they_are_kept(keep_blocks):
    result = onnx_prune.prune(
        models.digits_model(),
        budget=0.15,
        calibration=CALIBRATION,
        samples=64,
        keep_blocks=keep_blocks,
        measure=False,
    )
    assert bool(result.report.gone) is not keep_blocks
    assert all(row.after >= 1 for row in result.report.groups) is keep_blocks
    assert result.report.macs[1] <= 0.15 * result.report.macs[0]
    again = onnx_prune.inspect(result.model)
    assert again.cost.macs(again.cost.units) == result.report.macs[1]
    assert again.cost.params(again.cost.units) == result.report.params[1]


def test_weights_alone_let_no_block_go():
    result = onnx_prune.prune(models.digits_model(), budget=0.1, criterion="l2", calibration="none", measure=False)
    assert not result.report.gone
