"""The smallest model that keeps its accuracy: one set of measurements, each model once, every try told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx_prune
import onnx_prune.pipeline.measure
import pytest
from onnx_prune import AccuracyError, BudgetError, UsageError, models
from onnx_prune.pipeline.goal import Limit, as_drop
from onnx_prune.pipeline.within_drop import Search
from onnx_prune.runtime.measure.metric import Metric

TEST, CALIBRATION = (str(path) for path in models.digits_data())


class Bench:
    """A model that keeps `share` of its MACs scores 1 - (1 - share)^2; widths come in steps of 1 %."""

    def __init__(self, allowed, least=0.0, score=lambda share: 1 - (1 - share) ** 2):
        self.written, self.lines, self.least, self.better = [], [], least, 1e-6
        metric = Metric("top1", lambda share: self.measured(share, score))
        self.scores = []
        self.search = Search(self.plan, self.write, self.kept, Limit(metric, 1.0, allowed), "macs", self.lines.append)

    def plan(self, budget):
        if budget.amount < self.least:
            raise BudgetError("too small", where="here", fix="ask for more")
        return SimpleNamespace(removed={"all": tuple(range(100 - int(budget.amount * 100)))})

    def write(self, plan):
        self.written.append(plan)
        return Result(1 - len(plan.removed["all"]) / 100, plan)

    def kept(self, plan):
        """What is kept is refitted on more samples: its score is its own."""
        result = self.write(plan)
        self.written.pop()
        result.model += self.better
        return result

    def measured(self, share, score):
        self.scores.append(share)
        return score(share)


class Result(SimpleNamespace):
    """What the search looks at of a result."""

    def __init__(self, share, plan):
        super().__init__(model=share, plan=plan, report=SimpleNamespace(macs=(1000, round(1000 * share))))


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """The search's result is the stand-in itself, with its tries."""

    def with_score(result, limit, score, tries=()):
        result.score, result.tries = score, tries
        return result

    monkeypatch.setattr("onnx_prune.pipeline.within_drop.with_score", with_score)


@pytest.mark.parametrize("allowed", [0.001, 0.01, 0.05, 0.25, 0.6])
def test_the_smallest_that_holds_is_found(allowed):
    best = Bench(allowed).search.run("a model")
    wanted = 1 - allowed**0.5
    assert best.score >= 1 - allowed - 1e-9
    assert wanted - 1e-9 <= best.model <= wanted + 0.04
    assert [row.holds for row in best.tries].count(True) >= 1


def test_what_holds_as_a_draft_alone_is_not_kept():
    """Written with all samples it is measured again; where that falls short the next larger one is taken."""
    plain = Bench(0.01).search.run("a model").model
    bench = Bench(0.01)
    bench.better = -0.02
    best = bench.search.run("a model")
    assert best.score >= 0.99
    assert best.model + 0.02 > plain


def test_no_model_is_written_or_measured_twice():
    bench = Bench(0.01)
    bench.search.run("a model")
    assert len(bench.scores) == len(set(bench.scores)) == len(bench.written) + 1  # the one that is kept
    assert len([line for line in bench.lines if line.startswith("tried")]) <= 8


def test_a_share_that_no_plan_reaches_is_a_bound_too():
    best = Bench(0.9, least=0.7).search.run("a model")
    assert 0.7 <= best.model <= 0.72


def test_where_not_even_the_gentlest_cut_holds_the_error_has_its_plan():
    with pytest.raises(AccuracyError) as caught:
        Bench(0.01, score=lambda share: 0.3).search.run("a model")
    assert "gentlest cut" in str(caught.value)
    gentlest = caught.value.values["plan"]
    assert len(gentlest.removed["all"]) <= 2


@pytest.mark.parametrize(("said", "meant"), [("1%", 0.01), (0.01, 0.01), ("0.5", 0.5), ("0", 0.0), (0, 0.0)])
def test_a_drop_is_a_share_or_a_number(said, meant):
    assert as_drop(said) == meant


@pytest.mark.parametrize("said", ["nan", -0.1, "-1%", "much", "", "inf"])
def test_what_is_no_drop_is_refused(said):
    with pytest.raises(UsageError, match="not a share"):
        as_drop(said)


class TestFromEndToEnd:
    """With the demo's network and data."""

    @pytest.fixture(autouse=True)
    def plain(self):
        """Nothing stands in for anything here."""

    @pytest.fixture
    def counted(self, monkeypatch):
        count = {"calibrate": 0, "measure_sensitivity": 0}
        module = onnx_prune.pipeline.measure
        for name in count:
            original = getattr(module, name)

            def counting(*given, _original=original, _name=name, **named):
                count[_name] += 1
                return _original(*given, **named)

            monkeypatch.setattr(module, name, counting)
        return count

    def test_one_set_of_measurements_serves_every_try(self, counted):
        lines = []
        result = onnx_prune.prune(
            models.digits_model(), calibration=CALIBRATION, evaluate=TEST, max_drop="2%", measure=False,
            progress=lines.append,
        )  # fmt: skip
        report = result.report
        before, after = report.score
        assert before - after <= 0.02
        assert report.metric == "top1"
        assert report.macs[1] < 0.4 * report.macs[0]
        assert len(report.tries) >= 4
        assert counted == {"calibrate": 1, "measure_sensitivity": 1}
        assert sum(line.startswith("tried") for line in lines) == len(report.tries)
        assert onnx_prune.evaluate(result.model, TEST).top1 == pytest.approx(after)

    def test_smallest_in_parameters(self):
        options = {"calibration": "none", "evaluate": TEST, "metric": "agreement", "max_drop": 0.3, "measure": False}
        result = onnx_prune.prune(models.digits_model(), smallest="params", **options)
        assert result.plan.budget.kind == "params"
        assert result.report.score[1] >= 0.7

    def test_a_budget_beside_it_is_a_guard(self):
        options = {"budget": 0.5, "calibration": "none", "evaluate": TEST, "measure": False}
        with pytest.raises(AccuracyError) as caught:
            onnx_prune.prune(models.digits_model(), max_drop=0.01, **options)
        assert caught.value.values["plan"].removed
        result = onnx_prune.prune(models.digits_model(), max_drop=0.99, **options)
        assert not result.report.tries
        assert np.isclose(result.report.macs[1] / result.report.macs[0], 0.5, atol=0.02)

    def test_a_drop_without_data_is_refused(self):
        with pytest.raises(UsageError, match="needs data"):
            onnx_prune.prune(models.digits_model(), max_drop="1%")
        with pytest.raises(UsageError, match="there is no 'bits'"):
            onnx_prune.prune(models.digits_model(), max_drop="1%", evaluate=TEST, smallest="bits")
