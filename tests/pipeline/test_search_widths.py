"""`--allocation amc` from end to end, on the trained demo network."""

from __future__ import annotations

import numpy as np
import onnx_prune
import pytest
from onnx_prune import BudgetError, UsageError, models
from onnx_prune.runtime.search import stitched
from onnx_prune.runtime.torch import ddpg

TEST, CALIBRATION = models.digits_data()
SEARCH = "amc:episodes=12,warmup=6,images=64"


def prune(progress=lambda _: None, **settings):
    given = {
        "preset": "amc",
        "allocation": SEARCH,
        "calibration": CALIBRATION,
        "samples": 64,
        "align": 1,
        "budget": 0.5,
    }
    return onnx_prune.prune(models.digits_model(), measure=False, progress=progress, **{**given, **settings})


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The widths that were really tried; a cache of its own."""
    monkeypatch.setenv("ONNX_PRUNE_CACHE", str(tmp_path))
    tried, error = [], stitched.Stitched.error

    def noted(self, kept):
        tried.append(tuple(kept.tolist()))
        return error(self, kept)

    monkeypatch.setattr(stitched.Stitched, "error", noted)
    return tried


def test_the_best_network_that_was_tried_is_taken_and_the_budget_holds(measured):
    result = prune()
    kept = tuple(row.after for row in result.report.groups)
    assert kept in measured
    assert len(set(measured)) == len(measured) > 8
    assert result.plan.macs[1] <= 0.5 * result.plan.macs[0]
    assert (result.plan.criterion, result.plan.reconstruct) == ("l1:of=readers", "full")
    assert result.plan.allocation == "amc:episodes=12,warmup=6,images=64"
    assert result.report.samples == 64


def test_a_search_that_was_killed_goes_on_where_it_was(measured):
    def killed(line):
        if "5 of 12 episodes" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(killed)
    before = list(measured)
    assert 0 < len(before) <= 5
    gone_on = prune()
    after = measured[len(before) :]
    assert not set(before) & set(after)
    measured.clear()
    again = prune()
    assert measured == []
    assert again.plan.to_json() == gone_on.plan.to_json()
    other = prune(seed=1)
    assert measured
    assert other.plan.to_json() != again.plan.to_json()


def test_of_networks_that_are_worth_the_same_the_largest_is_taken(measured, monkeypatch):
    """Where accuracy says nothing the first one at random, which may be far below the budget, is no better."""
    tried, told = [], []

    def always(self, kept):
        tried.append(tuple(kept.tolist()))
        return 0.25

    monkeypatch.setattr(stitched.Stitched, "error", always)
    result = prune(told.append)
    cost = onnx_prune.inspect(models.digits_model()).cost
    spent = {kept: cost.macs(np.array(kept)) for kept in tried}
    kept = tuple(row.after for row in result.report.groups)
    assert spent[kept] == max(spent.values()) == result.plan.macs[1]
    assert spent[tried[0]] < spent[kept]
    assert any("all networks are worth the same" in line for line in told)


def test_other_budgets_and_streams_of_any_kind(measured):
    by_params = prune(budget=onnx_prune.Budget(params=0.6))
    assert by_params.plan.params[1] <= 0.6 * by_params.plan.params[0]
    spared = prune(exclude="conv1")
    assert {row.name: row.after for row in spared.report.groups}["conv1"] == 32


@pytest.mark.slow
def test_the_budget_may_be_of_time(measured):
    reached = onnx_prune.prune(
        models.digits_model(),
        preset="amc",
        allocation=SEARCH,
        calibration=CALIBRATION,
        samples=64,
        budget=onnx_prune.Budget(latency=0.8),
    )
    assert len(measured) > 4
    assert reached.plan.macs[1] < reached.plan.macs[0]
    with pytest.raises(BudgetError, match="cannot be met"):
        onnx_prune.prune(
            models.digits_model(),
            preset="amc",
            allocation=SEARCH,
            calibration=CALIBRATION,
            samples=64,
            budget=onnx_prune.Budget(latency=0.001),
        )


def test_what_is_out_of_reach_is_said_before_the_search(measured):
    with pytest.raises(BudgetError, match="cannot be met"):
        prune(budget=0.01)
    with pytest.raises(UsageError, match="needs the moments"):
        onnx_prune.prune(models.lenet5(), allocation="amc", calibration="none")
    assert measured == []


def test_unlabelled_and_synthetic_images_serve(measured):
    images = np.load(CALIBRATION)["input"][:96]
    result = prune(calibration=images)
    assert result.plan.macs[1] <= 0.5 * result.plan.macs[0]
    assert len(measured) > 8


def test_the_network_of_the_least_error_is_taken_whenever_it_was_tried(measured, monkeypatch):
    tried = {}

    def fourth(self, kept):
        tried[tuple(kept.tolist())] = 0.1 if len(tried) == 3 else 0.5
        return tried[tuple(kept.tolist())]

    monkeypatch.setattr(stitched.Stitched, "error", fourth)
    kept = tuple(row.after for row in prune().report.groups)
    assert len(tried) > 8
    assert tried[kept] == 0.1


def test_the_agent_sees_the_share_that_the_wall_has_left_of_what_it_said(measured, monkeypatch):
    """The last number of its state is the share of the layer before that really stays, as in the authors' code."""
    states = []
    monkeypatch.setattr(ddpg.Agent, "act", lambda self, state: states.append(state[-1]) or 1.0)
    prune(allocation="amc:episodes=1,warmup=1,images=64")
    (tried,) = measured
    groups = onnx_prune.inspect(models.digits_model()).groups.groups
    shares = [kept / group.units for kept, group in zip(tried, groups, strict=True) if group.pinned is None]
    assert states[0] == 1
    assert len(states) == len(shares)
    left = sorted(shares)
    for share in states[1:]:
        left.remove(share)
    assert len(left) == 1, "that of the last layer, which no state follows"
    assert min(states) < 0.5, "it always said all"
