"""Of widths that meet a budget alike those are taken that are measured to be quicker, and by more than noise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from onnx_prune.passes.errors import BudgetError, ReadError
from onnx_prune.passes.selection.latency_table import LatencyTable, fixed_side, linear_node
from onnx_prune.pipeline.latency import quickest as subject
from onnx_prune.pipeline.latency.quickest import quickest
from onnx_prune.runtime.latency.model import Place
from onnx_prune.runtime.measure.latency import Timing

UNITS = np.array([64])
WIDTHS = {("auto", False): 48, (16, False): 32, (32, False): 40, ("auto", True): 56}


@pytest.fixture
def world(monkeypatch):
    """`takes`: the milliseconds of each width; `spent`: what it takes of the budget; `log`: what was measured."""
    state = SimpleNamespace(takes={}, log=[], macs=1e6, spent={64: 64})
    table = LatencyTable((linear_node("n", fixed_side(1, 64), 0.0),), UNITS)

    def measured(analysis, vectors, place, seconds):
        state.log += [int(kept[0]) for kept in vectors]
        times = [100.0, *(state.takes[int(kept[0])] for kept in vectors)]
        return [Timing(ms, ms, 0.0, by_cpu=True) for ms in times]

    monkeypatch.setattr(subject, "measured", measured)
    monkeypatch.setattr(subject, "timed_nodes", lambda analysis, place, seconds: table)
    monkeypatch.setattr(subject, "block_size", lambda device: 16)
    return state


def run(state, widths=WIDTHS):
    cost = SimpleNamespace(units=UNITS, macs=lambda kept: state.macs)

    def allocated(align, table):
        width = widths.get((align, table is not None))
        if width is None:
            raise BudgetError("out of reach")
        return np.array([width])

    return int(
        quickest(SimpleNamespace(cost=cost), allocated, lambda kept: state.spent.get(int(kept[0]), 32), Place())[0]
    )


def test_the_quickest_of_three_is_taken(world):
    world.takes = {48: 60.0, 32: 50.0, 40: 55.0}
    assert run(world) == 32
    assert world.log == [48, 32, 40]


def test_what_is_quicker_by_noise_alone_is_not_taken(world):
    world.takes = {48: 60.0, 32: 59.5, 40: 59.2}
    assert run(world) == 48


def test_an_alignment_that_cannot_meet_the_budget_is_no_candidate(world):
    world.takes = {48: 60.0, 56: 40.0}
    assert run(world, {("auto", False): 48, ("auto", True): 56}) == 56


def test_who_is_quicker_by_cutting_more_is_no_candidate(world):
    world.takes, world.spent = {48: 60.0, 40: 55.0, 32: 50.0}, {64: 64, 48: 32, 40: 31, 32: 28}
    assert run(world, {("auto", False): 48, (16, False): 32, (32, False): 40}) == 40
    assert world.log == [48, 40]


def test_who_takes_far_more_of_one_layer_than_all_would_lose_alike_is_no_candidate(world):
    world.takes, world.spent = {60: 90.0, 56: 80.0, 48: 60.0}, {64: 64, 60: 58, 56: 58, 48: 58}
    assert run(world, {("auto", False): 60, (16, False): 48, ("auto", True): 58, (32, False): 48}) == 60
    assert world.log == []
    world.takes = {60: 90.0, 58: 80.0}
    world.spent = {64: 64, 60: 58, 58: 57}
    assert run(world, {("auto", False): 60, (16, False): 32, ("auto", True): 58}) == 58


@pytest.fixture
def proportional(world, monkeypatch):
    """The time of a width is predicted to be in proportion to it."""
    side = replace(fixed_side(1, 64), base=0, row=np.ones(1))
    table = LatencyTable((linear_node("n", side, 1.0),), UNITS)
    monkeypatch.setattr(subject, "timed_nodes", lambda analysis, place, seconds: table)
    return world


def test_uneven_widths_are_better_than_none_that_bring_time(proportional):
    proportional.takes, proportional.spent = {63: 99.0, 60: 94.0, 48: 60.0}, {64: 64, 63: 58, 60: 58, 48: 58}
    assert run(proportional, {("auto", False): 63, ("auto", True): 48}) == 48
    assert run(proportional, {("auto", False): 60, ("auto", True): 48}) == 60
    assert proportional.log == [63, 48, 60], "where even widths bring time no others are measured"


def test_what_is_predicted_to_bring_time_and_does_not_is_no_reason_to_keep_even_widths(proportional):
    proportional.takes, proportional.spent = {60: 102.0, 48: 90.0}, {64: 64, 60: 58, 48: 58}
    assert run(proportional, {("auto", False): 60, ("auto", True): 48}) == 48
    proportional.takes[48] = 101.0
    assert run(proportional, {("auto", False): 60, ("auto", True): 48}) == 60, "nothing can be won"


def test_one_candidate_is_not_measured(world):
    assert run(world, dict.fromkeys(WIDTHS, 48)) == 48
    assert world.log == []


def test_a_large_network_and_one_that_is_not_recorded_take_the_first(world, monkeypatch):
    def refuse(analysis, place, seconds):
        raise ReadError("not recorded")

    monkeypatch.setattr(subject, "timed_nodes", refuse)
    assert run(world) == 48
    world.macs = 1e12
    assert run(world) == 48
    assert world.log == []
