"""The knapsack of widths: the least harm within the milliseconds, as good as trying everything on small tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx_prune.passes.selection.knapsack import SOLVERS, Menu, exchange, total_harm
from onnx_prune.passes.selection.latency_table import Band, LatencyTable, NodeTable, Side, scale

GROUPS, FULL = 5, 32


def side(group):
    row = np.zeros(GROUPS)
    row[group] = 1
    return Side(0, row, scale(FULL, [Band((8, 16, 24, 32), step=8)]))


def chain(rng):
    """Layers one behind another, each between two groups, whose time is the product of the widths, and a bit more."""
    nodes = []
    for group in range(GROUPS - 1):
        reads, writes = side(group), side(group + 1)
        scale_of = rng.uniform(0.5, 2)
        ms = scale_of * np.outer(reads.scale.grid, writes.scale.grid) / FULL**2
        ms[1:, 1:] += 0.02
        nodes.append(NodeTable(f"n{group}", reads, writes, ms))
    return LatencyTable(tuple(nodes), np.full(GROUPS, FULL), rest=0.1)


def menus(rng):
    widths = np.array([8, 16, 24, 32])
    share = (FULL - widths) / FULL
    return [Menu(group, widths, rng.lognormal() * share ** rng.uniform(1, 3)) for group in range(GROUPS)]


def best(table, choices, limit):
    every = itertools.product(*[menu.widths for menu in choices])
    fitting = [np.array(kept) for kept in every if table.milliseconds(np.array(kept)) <= limit]
    return min(total_harm(choices, kept) for kept in fitting)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solution_holds_the_limit_and_is_near_the_best_of_all(solver):
    lost = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        table, choices = chain(rng), menus(rng)
        limit = rng.uniform(0.3, 0.9) * table.milliseconds(table.units)
        kept = SOLVERS[solver](table, choices, limit)
        assert table.milliseconds(kept) <= limit * (1 + 1e-6)
        assert all(kept[menu.group] in menu.widths for menu in choices)
        lost.append(total_harm(choices, kept) / best(table, choices, limit) - 1)
    assert np.mean(lost) < 0.03
    assert max(lost) < 0.3


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_cannot_be_reached_is_none_and_what_fits_stays_whole(solver):
    rng = np.random.default_rng(0)
    table, choices = chain(rng), menus(rng)
    assert SOLVERS[solver](table, choices, 0.1) is None
    assert (SOLVERS[solver](table, choices, table.milliseconds(table.units)) == table.units).all()


def test_a_group_without_a_menu_stays_whole():
    rng = np.random.default_rng(1)
    table, choices = chain(rng), menus(rng)[1:]
    kept = exchange(table, choices, 0.6 * table.milliseconds(table.units))
    assert kept[0] == FULL


def test_a_width_on_the_same_stair_is_never_given_away():
    """16 costs what 9 does: between them the harm decides alone."""
    rng = np.random.default_rng(2)
    table = chain(rng)
    widths = np.array([8, 9, 12, 16, 24, 32])
    choices = [Menu(g, widths, (FULL - widths) / FULL) for g in range(GROUPS)]
    for share in (0.4, 0.6, 0.8):
        kept = exchange(table, choices, share * table.milliseconds(table.units))
        assert not {9, 12} & set(kept.tolist())


def test_a_group_may_go_entirely_where_its_menu_says_so():
    rng = np.random.default_rng(3)
    table = chain(rng)
    choices = [Menu(g, np.array([0, 16, 32]), np.array([1e-3 if g == 2 else 10.0, 5.0, 0.0])) for g in range(GROUPS)]
    kept = exchange(table, choices, 0.7 * table.milliseconds(table.units))
    assert kept[2] == 0
