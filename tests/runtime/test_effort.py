"""What an effort means in samples, levels and positions."""

import numpy as np
import onnx_prune
import pytest
from onnx_prune import models
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.effort import EFFORTS, make_effort
from onnx_prune.runtime.measure.ahead import side_by_side


def test_sensitivity_costs_about_as_many_passes_as_the_effort_says():
    for samples, groups in ((2048, 27), (512, 40), (1024, 9)):
        normal = make_effort("normal")
        probes, levels = normal.probed(samples, groups)
        assert probes * len(levels) * groups / 2 <= normal.sensitivity * samples or probes == normal.probes[0]
    assert len(normal.probed(2048, 27)[1]) == 3
    assert len(normal.probed(1024, 54)[1]) == 1
    assert normal.probed(64, 32) == (4, (0.5,))  # few large images, many groups: one level, and the fewest images


def test_a_layer_gets_rows_for_its_inputs_and_no_more_positions_than_asked_for():
    normal, thorough = EFFORTS["normal"], EFFORTS["thorough"]
    assert normal.positions_of(2048, 54) == 8
    assert normal.positions_of(2048, 576) > normal.positions_of(2048, 54)
    assert thorough.positions_of(2048, 54) == thorough.positions_of(2048, 576) == 32
    assert normal.positions_of(64, 4608) == 256  # few samples: rows all the same


def test_large_maps_have_rows_enough_in_few_samples():
    normal = EFFORTS["normal"]
    assert [normal.fitted_on(2048, 144, side**2) for side in (32, 16, 8)] == [256, 1024, 2048]
    assert normal.fitted_on(256, 64, 56**2) == 84
    assert normal.fitted_on(64, 4608, 49) == 64, "never more than there are"
    assert EFFORTS["thorough"].fitted_on(2048, 144, 32**2) == 2048


def test_less_effort_measures_less_and_an_unknown_one_is_refused():
    quick, normal = (onnx_prune.prune(*arguments(), effort=word) for word in ("quick", "normal"))
    assert quick.report.macs[1] <= 0.5 * quick.report.macs[0]
    assert quick.report.refit.startswith("kept")
    assert normal.report.distance < 0.5
    with pytest.raises(UsageError, match="there is no 'much'"):
        onnx_prune.prune(*arguments(), effort="much")


def arguments():
    return (models.digits_model(),)


def test_work_side_by_side_comes_in_order_and_asks_for_no_item_early():
    asked = []

    def items():
        for number in range(9):
            asked.append(number)
            yield number

    found = []
    for value in side_by_side(lambda n: n * n, items(), 3):
        found.append(value)
        assert len(asked) <= len(found) + 2
    assert found == [n * n for n in range(9)]
    assert list(side_by_side(np.sqrt, [4.0], 1)) == [2.0]


def test_an_error_of_one_item_is_raised():
    def work(number):
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, [1, 0, 2], 2))


def test_a_group_goes_entirely_only_where_there_is_time_to_measure_that():
    normal = make_effort("normal")
    assert normal.affords_whole(2048, 30)
    assert not normal.affords_whole(64, 32)
    assert make_effort("thorough").affords_whole(64, 32)
