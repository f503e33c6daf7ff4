"""Which counts a group may keep, against what the alignment promises."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.frames import excluded, frame_of, menus


def test_auto_aligns_a_group_by_its_width():
    units = np.array([1, 7, 8, 15, 16, 32, 63, 64, 500])
    coarse, fine, small, any_count = (menu.tolist() for menu in menus(units, "auto", coarse=True))
    assert coarse == [1, 7, 4, 4, 8, 16, 16, 32, 32]  # below 8 a group stays whole
    assert fine == [1, 7, 4, 4, 4, 8, 8, 8, 16]
    assert small == [1, 4, 4, 4, 4, 4, 4, 4, 4]
    assert any_count == [1] * 9
    assert [menu.tolist() for menu in menus(units, "auto")] == [fine, small, any_count]
    assert [menu.tolist() for menu in menus(units, 8)] == [[8] * 9]


def test_a_frame_leaves_each_group_a_multiple_or_all_of_it(groups_of):
    cost = cost_model(groups_of(models.lenet5()))  # 20, 50 and 500 units
    frame = frame_of(cost, 0.1, menus(cost.units, 8)[0], "fc.*")
    by_name = dict(zip(frame.names, frame.least.tolist(), strict=True))
    assert (by_name["conv1"], by_name["conv2"]) == (8, 8)
    assert by_name["fc1"] == 500
    assert (frame.aligned(cost.units / 2.0) % 8 == 0)[[frame.names.index("conv1"), frame.names.index("conv2")]].all()


def test_names_that_stay_are_given_by_a_pattern_or_one_by_one(groups_of):
    groups = groups_of(models.lenet5())
    assert excluded(groups, "conv.") == {"conv1", "conv2"}
    assert excluded(groups, ["conv1"]) == {"conv1"}
    assert excluded(groups, None) == frozenset()
    with pytest.raises(UsageError, match="no group's name matches 'none'"):
        excluded(groups, "none")
