"""What a run decides where little is said: presets on a trained network, with data and without."""

from __future__ import annotations

import numpy as np
import onnx_prune
import pytest
from onnx_prune import Budget, UsageError, models
from onnx_prune.passes.selection.layers import inner_convolutions, rectified, stage_starts
from onnx_prune.passes.selection.presets import most_sensitive

CALIBRATION = models.digits_data()[1]


def prune(model, **settings):
    return onnx_prune.prune(model, measure=False, samples=64, **settings)


def cut(result):
    return {row.name for row in result.report.groups if row.after < row.before}


def test_li_without_data_spares_the_starts_of_stages():
    model = models.resnet_cifar(20)
    groups = onnx_prune.inspect(model).groups
    result = prune(model, preset="li", budget=Budget(macs=0.7))
    assert cut(result) == inner_convolutions(groups) - stage_starts(groups)
    assert len(cut(result)) == 7
    assert (result.plan.criterion, result.plan.allocation, result.plan.reconstruct) == ("l1", "uniform", "none")


def test_li_with_data_spares_what_is_most_sensitive_without_a_refit():
    analysis, found = onnx_prune.sensitivity(
        models.digits_model(), calibration=CALIBRATION, samples=64, criterion="l1", reconstruct="none"
    )
    inner = inner_convolutions(analysis.groups)
    half = {name: found.values[name][analysis.groups[name].units // 2] for name in inner}
    result = prune(models.digits_model(), preset="li", calibration=CALIBRATION, budget=Budget(macs=0.7))
    assert cut(result) == inner - most_sensitive(half)
    assert len(cut(result)) == 2


def test_ratios_by_stage_go_with_a_preset():
    shares = {r"layer1\..*": 0.4, r"layer[23]\..*": 0.9}
    result = prune(models.resnet_cifar(20), preset="li", budget=Budget(channels=shares))
    kept = {row.name: row.after for row in result.report.groups if row.after < row.before}
    assert kept == {
        "layer1.0.conv1": 6, "layer1.1.conv1": 6, "layer1.2.conv1": 6,
        "layer2.1.conv1": 28, "layer2.2.conv1": 28, "layer3.1.conv1": 57, "layer3.2.conv1": 57,
    }  # fmt: skip


def test_greedy_l1_is_an_option_of_the_criterion():
    plans = [prune(models.lenet5(), criterion=word, align=1).plan for word in ("l1", "l1:greedy")]
    assert plans[1].criterion == "l1:greedy"
    assert plans[0].removed != plans[1].removed


def test_apoz_trims_rectified_groups_alone_and_says_what_is_kept_as_its_budget():
    result = prune(models.digits_model(), preset="apoz", calibration=CALIBRATION)
    assert cut(result) <= rectified(onnx_prune.inspect(models.digits_model()).groups)
    assert result.plan.budget == Budget(macs=result.plan.macs[1])
    assert result.plan.macs[1] < result.plan.macs[0]


def test_a_preset_that_finds_nothing_says_so():
    data = {"input": np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype(np.float32)}
    with pytest.raises(UsageError, match="'apoz' finds no group in this model that it would cut") as error:
        prune(models.densenet40(), preset="apoz", calibration=data)
    assert "--criterion apoz --allocation trim" in error.value.fix


def test_sensitivity_needs_data():
    with pytest.raises(UsageError, match="measured on data"):
        onnx_prune.sensitivity(models.digits_model(), calibration="none")


def test_what_is_said_wins_over_the_preset():
    result = prune(models.resnet_cifar(20), preset="li", criterion="fpgm", exclude="conv1")
    assert result.plan.criterion == "fpgm"
    assert "layer2.0.conv2" in cut(result)  # a stream: the preset's own exclusions are off
