"""Tables of milliseconds: exact at what was measured, stairs between, quick to ask."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from onnx_prune.passes.selection.latency_table import (
    Band,
    LatencyTable,
    NodeTable,
    Side,
    fixed_side,
    linear_node,
    scale,
)

GROUPS = 3


def side(full, group, bands, base=0, slices=1):
    row = np.zeros(GROUPS)
    row[group] = slices
    return Side(base, row, scale(full, bands))


def node(reads, writes, cost):
    """A table that holds `cost` at the measured widths."""
    ms = np.array([[cost(i, o) if i and o else 0.0 for o in writes.scale.grid] for i in reads.scale.grid])
    return NodeTable("conv", reads, writes, ms)


@pytest.fixture
def table():
    """Two convolutions behind one another, groups 0 -> 1 -> 2, in stairs of 8, with a penalty for odd widths read."""
    even = Band((8, 32), step=8, multiple=4)
    odd = Band((1, 31))
    nodes = (
        node(side(32, 0, [even, odd]), side(32, 1, [Band((8, 32), step=8)]), cost),
        node(side(32, 1, [even, odd]), side(32, 2, [Band((8, 32), step=8)]), cost),
    )
    return LatencyTable(nodes, np.array([32, 32, 32]), rest=0.5, factor=2.0)


def cost(width_read, width_written):
    return width_read * width_written / 100 + (8.0 if width_read % 2 else 0.1)


def test_measured_widths_are_exact_and_stairs_are_level(table):
    assert table.milliseconds(np.array([8, 32, 8])) == pytest.approx(2 * (0.5 + cost(8, 32) + cost(32, 8)))
    assert table.milliseconds(np.array([8, 28, 1])) == pytest.approx(2 * (0.5 + cost(8, 32) + cost(32, 8)))
    assert table.milliseconds(np.array([8, 16, 8])) == pytest.approx(2 * (0.5 + cost(8, 16) + cost(16, 8)))
    assert table.milliseconds(np.array([8, 16, 8])) != pytest.approx(table.milliseconds(np.array([8, 17, 8])))


def test_a_width_of_zero_costs_nothing(table):
    assert table.milliseconds(np.array([8, 0, 8])) == pytest.approx(2 * 0.5)


def test_an_odd_width_is_looked_up_among_the_odd_ones(table):
    odd = table.milliseconds(np.array([15, 32, 8]))
    assert odd == pytest.approx(2 * (0.5 + cost(15, 32) + cost(32, 8)))
    assert odd > table.milliseconds(np.array([16, 32, 8]))


def test_one_group_that_changes_is_priced_as_the_whole_would_be(table):
    kept, widths = np.array([13, 24, 9]), np.arange(33)
    vectors = np.repeat(kept[None], 33, axis=0)
    vectors[:, 1] = widths
    whole = [table.milliseconds(vector) for vector in vectors]
    assert table.moved(kept, 1, widths) == pytest.approx(whole, rel=1e-12)
    assert table.each(vectors) == pytest.approx(whole, rel=1e-12)
    assert table.milliseconds(kept) + table.change(kept, 1, widths) == pytest.approx(whole, rel=1e-12)
    assert table.rest * table.factor + table.by_node(kept).sum() == pytest.approx(table.milliseconds(kept))


def test_steps_are_where_a_stair_ends(table):
    assert table.steps(0).tolist() == [8, 16, 24, 32]
    assert table.steps(2).tolist() == [8, 16, 24, 32]


def test_a_group_that_is_no_multiple_keeps_its_whole_width_as_a_step():
    nodes = (node(side(20, 0, [Band((8, 24), step=8)]), fixed_side(GROUPS), lambda i, o: float(i)),)
    assert LatencyTable(nodes, np.array([20, 1, 1])).steps(0).tolist() == [8, 16, 20]


def test_without_stairs_every_width_is_a_step():
    whole = side(6, 0, [Band((1, 6))])
    table = LatencyTable((linear_node("relu", whole, 3.0),), np.array([6, 1, 9]))
    assert table.steps(0).tolist() == [1, 2, 3, 4, 5, 6]
    assert table.milliseconds(np.array([2, 1, 9])) == pytest.approx(1.0)
    assert table.steps(2).tolist() == [9], "nothing depends on it"


def test_widths_of_a_concatenation_add_up():
    row = np.array([1.0, 2.0, 0.0])
    reads = Side(4, row, scale(20, [Band((1, 20))]))
    table = LatencyTable((node(reads, fixed_side(GROUPS), lambda i, o: float(i)),), np.array([6, 5, 1]))
    assert table.milliseconds(np.array([3, 4, 1])) == pytest.approx(4 + 3 + 8)


def test_a_factor_is_corrected_by_replacing_it(table):
    kept = np.array([8, 8, 8])
    assert replace(table, factor=3.0).milliseconds(kept) == pytest.approx(1.5 * table.milliseconds(kept))


def test_ten_thousand_widths_of_fifty_groups_take_about_a_second():
    count = 50
    bands = [Band((8, 16, 32, 64), step=8, multiple=4), Band((1, 63))]
    rows = np.eye(count)
    wide = scale(64, bands)
    ms = np.outer(wide.grid, wide.grid).astype(np.float64)
    nodes = tuple(
        NodeTable("conv", Side(0, rows[i], wide), Side(0, rows[(i + 1) % count], wide), ms) for i in range(count)
    )
    table = LatencyTable(nodes, np.full(count, 64))
    kept = np.random.default_rng(0).integers(1, 65, (1000, count))
    start = time.thread_time()
    found = [table.milliseconds(vector) for vector in kept]
    assert time.thread_time() - start < 0.5, "a tenth of the ten thousand, with much to spare"
    assert table.each(kept) == pytest.approx(found)
