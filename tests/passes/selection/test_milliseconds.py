"""Widths for milliseconds: each method's harms, on the stairs of the table."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.errors import BudgetError
from onnx_prune.passes.selection.latency_table import Band, LatencyTable, NodeTable, Side, scale
from onnx_prune.passes.selection.methods import Error, Frame, Global, Trim, Uniform
from onnx_prune.passes.selection.milliseconds import fairest, quickest_within, thriftiest_within, within_milliseconds
from onnx_prune.passes.selection.ranking import Ranking

GROUPS, FULL = 4, 64
NAMES = tuple("abcd")


def side(group):
    row = np.zeros(GROUPS)
    row[group] = 1
    return Side(0, row, scale(FULL, [Band(tuple(range(8, 65, 8)), step=8)]))


@pytest.fixture
def table():
    """Each group costs the square of its width, the first ten times as much."""
    nodes = []
    for group in range(GROUPS):
        reads, writes = side(group), side(group)
        ms = np.outer(reads.scale.grid, writes.scale.grid) * (10.0 if group == 0 else 1.0) / FULL**2
        nodes.append(NodeTable(f"n{group}", reads, writes, ms))
    return LatencyTable(tuple(nodes), np.full(GROUPS, FULL), block=8)


def frame(align=1, stays=()):
    units = np.full(GROUPS, FULL)
    least = np.where(np.isin(np.arange(GROUPS), stays), FULL, max(align, 1))
    return Frame(NAMES, units, least, np.full(GROUPS, align))


def ranking(slope):
    return Ranking(np.arange(FULL), slope * (np.arange(1, FULL + 1) / FULL))


def share_of(table, kept):
    return table.milliseconds(kept) / table.milliseconds(table.units)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.2])
def test_uniform_widths_are_on_the_stairs_and_about_alike(table, share):
    kept = within_milliseconds(table, frame(), {}, share * table.milliseconds(table.units), Uniform())
    assert (kept % 8 == 0).all()
    assert share - 0.12 < share_of(table, kept) <= share
    assert np.ptp(kept) <= 24


def test_error_cuts_where_harm_is_small(table):
    rankings = {name: ranking(slope) for name, slope in zip(NAMES, (10, 10, 10, 0.01), strict=True)}
    kept = within_milliseconds(table, frame(), rankings, 0.95 * table.milliseconds(table.units), Error())
    assert kept[3] < 48
    assert (kept[:3] == FULL).all()
    normalised = within_milliseconds(table, frame(), rankings, 0.6 * table.milliseconds(table.units), Global())
    assert normalised[0] < FULL, "the dear group goes first where harms are only comparable by their means"


def channels(kept):
    return int(kept.sum())


def test_by_time_alone_the_layer_goes_that_takes_most_for_what_is_counted(table):
    kept = thriftiest_within(table, frame(), channels, 200)
    assert kept.tolist() == [8, FULL, FULL, FULL]
    assert thriftiest_within(table, frame(stays=(0, 1, 2)), channels, 199) is None
    some = thriftiest_within(table, frame(), channels, 150)
    assert channels(some) == 144, "the widest on the stairs that fit"
    assert some[0] == 8


def test_even_shares_give_way_to_time_within_a_budget_of_another_kind_alone(table):
    limit = 0.75 * channels(table.units)
    even = within_milliseconds(table, frame(), {}, 0.3 * table.milliseconds(table.units), Uniform())
    kept = quickest_within(table, frame(align=32), {}, channels, limit, Uniform())
    assert np.ptp(even) <= 24
    assert kept[0] == 32
    assert channels(kept) <= limit
    rankings = {name: ranking(slope) for name, slope in zip(NAMES, (100, 1, 1, 1), strict=True)}
    assert quickest_within(table, frame(), rankings, channels, limit, Error())[0] == FULL


def test_excluded_groups_stay_and_given_alignments_hold(table):
    kept = within_milliseconds(table, frame(align=16, stays=[1]), {}, 0.4 * table.milliseconds(table.units), Uniform())
    assert kept[1] == FULL
    assert (kept % 16 == 0).all()


def test_what_cannot_be_reached_says_what_can(table):
    with pytest.raises(BudgetError, match="the latency cannot be met") as error:
        within_milliseconds(table, frame(stays=[0]), {}, 0.5 * table.milliseconds(table.units), Uniform())
    possible = error.value.values["possible"]
    assert 10 / 13 < possible < 0.8
    kept = within_milliseconds(table, frame(stays=[0]), {}, possible * table.milliseconds(table.units), Uniform())
    assert share_of(table, kept) == pytest.approx(possible)


def test_a_method_without_harms_is_left_to_its_own_growth(table):
    assert within_milliseconds(table, frame(), {}, 1.0, Trim()) is None


def test_no_layer_loses_far_more_than_all_would_alike():
    assert fairest(1.0) == 1.0
    assert fairest(0.9) == pytest.approx(0.895, abs=0.001)
    assert fairest(0.5) == pytest.approx(0.4, abs=0.001)
    assert fairest(0.1) == 0.4
