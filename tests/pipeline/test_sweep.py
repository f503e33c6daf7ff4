"""A sweep measures once, meets every budget it can, and marks the models that are worth having."""

from __future__ import annotations

from types import SimpleNamespace

import onnx_prune
import onnx_prune.pipeline.measure
import pytest
from onnx_prune import Budget, UsageError, models
from onnx_prune.pipeline.sweep import Point, budget_words, with_front

TEST, CALIBRATION = (str(path) for path in models.digits_data())


@pytest.fixture(scope="module")
def swept():
    """Three budgets, one of which is out of reach, and how often was measured."""
    count = {"calibrate": 0, "measure_sensitivity": 0}
    patch = pytest.MonkeyPatch()
    for name in count:
        original = getattr(onnx_prune.pipeline.measure, name)

        def counting(*given, _original=original, _name=name, **named):
            count[_name] += 1
            return _original(*given, **named)

        patch.setattr(onnx_prune.pipeline.measure, name, counting)
    try:
        found = onnx_prune.sweep(
            models.digits_model(), (0.7, "40%", 0.0001), calibration=CALIBRATION, evaluate=TEST, measure=False
        )
    finally:
        patch.undo()
    return found, count


def test_one_calibration_and_one_sensitivity_serve_all(swept):
    assert swept[1]["calibrate"] == 1
    assert swept[1]["measure_sensitivity"] <= 2  # streams are measured once a budget cannot do without them


def test_every_budget_is_met_or_said_to_be_out_of_reach(swept):
    first, second, third = swept[0].points
    for point, share in ((first, 0.7), (second, 0.4)):
        report = point.result.report
        assert 0.8 * share < report.macs[1] / report.macs[0] <= share
        assert report.proof < 1e-5
        assert report.score[1] > 0.9
    assert third.result is None
    assert "cannot be met" in third.missed
    assert swept[0].curves.sensitivity


def test_a_point_is_what_prune_makes(swept):
    alone = onnx_prune.prune(models.digits_model(), budget=0.4, calibration=CALIBRATION, measure=False)
    assert alone.model == swept[0].points[1].result.model


def test_it_is_a_table_for_people_and_json(swept):
    headings, rows = swept[0].rows()
    assert headings == ["budget", "MACs", "parameters", "top-1", "front"]
    assert [row[0] for row in rows] == ["macs 70%", "macs 40%", "macs 0.01%"]
    assert "<table>" in swept[0]._repr_html_()
    assert len(swept[0].as_dict()["points"]) == 3


def point(ms, score):
    report = SimpleNamespace(latency=(1.0, ms), score=(1.0, score), metric="top1", distance=None, macs=(2, 1))
    return Point(Budget(macs=0.5), SimpleNamespace(report=report))


def test_the_front_has_no_point_that_another_one_beats():
    points = [point(3.0, 0.90), point(2.0, 0.92), point(1.0, 0.80), point(1.5, 0.79), point(2.0, 0.92)]
    assert [p.front for p in with_front(points)] == [False, True, True, False, True]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="no budget"):
        onnx_prune.sweep(models.digits_model(), [])
    with pytest.raises(UsageError, match="there is no argument 'max_drop'"):
        onnx_prune.sweep(models.digits_model(), [0.5], max_drop=0.1)
    with pytest.raises(UsageError, match="is not a whole number"):
        onnx_prune.sweep(models.digits_model(), [0.5], samples="x")


def test_budgets_in_words():
    words = [budget_words(b) for b in (Budget(), Budget(macs=0.333), Budget(latency="5ms"), Budget(params="10M"))]
    assert words == ["macs 50%", "macs 33.3%", "latency 5ms", "params 10000000"]
