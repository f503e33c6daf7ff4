"""Latencies: plausible, comparable, bounded in time, taken in turns."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import parser
from onnx_prune.runtime.measure import latency
from onnx_prune.runtime.measure.latency import Timing, compare, ratio


def chain(length: int):
    steps = " ".join(f"t{i + 1} = MatMul(t{i}, t{i})" for i in range(length))
    return parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[192, 192] t0) => (float[192, 192] t{length}) {{ {steps} }}
    """)


FEEDS = {"t0": np.full((192, 192), 1 / 192, np.float32)}


def test_the_longer_model_takes_longer_and_time_is_bounded():
    start = time.perf_counter()
    short, long = compare([chain(1), chain(20)], FEEDS, seconds=0.3, warmup=0.1, device="cpu", threads=1)
    assert 0 < 3 * short.wall < long.wall < 1000
    assert 0 < 3 * short.cpu < long.cpu < 1000
    assert ratio(short, long) > 3
    assert time.perf_counter() - start < 30


class FakeSession:
    """Takes `cost` seconds of a clock that only it moves, and logs its runs; the processor works a share of it."""

    log: list[str]
    now = 0.0
    spent = 0.0
    share = 1.0
    device = "cpu"

    def bound(self, feeds):
        return lambda: self.run(feeds)

    def __init__(self, name: str, costs: list[float]) -> None:
        self.name, self.costs = name, costs

    def run(self, feeds):
        type(self).log.append(self.name)
        cost = self.costs.pop(0)
        type(self).now += cost
        type(self).spent += cost * self.share


@pytest.fixture
def fake(monkeypatch):
    FakeSession.log, FakeSession.now, FakeSession.spent, FakeSession.share = [], 0.0, 0.0, 1.0
    clock = SimpleNamespace(perf_counter=lambda: FakeSession.now, process_time=lambda: FakeSession.spent)
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency, "_LEAST_ROUNDS", 1)
    monkeypatch.setattr(latency, "open_session", lambda model, **_: FakeSession(*model))
    monkeypatch.setattr(latency, "fitted", lambda model, feeds: model)


@pytest.mark.usefixtures("fake")
def test_models_run_in_turns_and_the_lower_quartile_leaves_the_warm_up_out():
    a, b = [9.0, 1.0, 1.0, 1.0, 7.0], [8.0, 2.0, 2.0, 2.0, 2.0]
    first, second = compare([("a", a), ("b", b)], {}, seconds=16, warmup=0, threads=1)
    assert "".join(FakeSession.log) == "ab" + "abbaabba"
    assert (first.wall, second.wall, second.cpu) == (1000, 2000, 2000)
    assert first.spread > second.spread == 0
    assert first.busy
    assert not second.busy


@pytest.mark.usefixtures("fake")
def test_a_thread_that_waits_for_its_processor_is_compared_by_processor_time():
    FakeSession.share = 0.5
    (only,) = compare([("a", [1.0, 2.0, 2.0])], {}, seconds=4, warmup=1, threads=1)
    assert (only.wall, only.cpu, only.busy) == (2000, 1000, True)
    assert only.by_cpu
    assert only.compared == 1000
    assert ratio(Timing(10, 4, 0.0, by_cpu=True), Timing(9, 2, 0.0, by_cpu=True)) == 0.5
    assert ratio(Timing(10, 4, 0.0), Timing(9, 2, 0.0)) == 0.9


@pytest.mark.usefixtures("fake")
def test_a_gpu_is_compared_by_the_clock_however_long_its_processor_waits(monkeypatch):
    monkeypatch.setattr(FakeSession, "device", "cuda")
    FakeSession.share = 0.1
    (only,) = compare([("a", [1.0, 2.0, 2.0])], {}, seconds=4, warmup=1, threads=1)
    assert not only.by_cpu
    assert only.compared == 2000


@pytest.mark.usefixtures("fake")
def test_slow_models_run_longer_than_is_asked_for_so_that_each_runs_a_few_times(monkeypatch):
    monkeypatch.setattr(latency, "_LEAST_ROUNDS", 3)
    compare([("a", [1.0] * 9)], {}, seconds=1, warmup=1)
    assert len(FakeSession.log) == 1 + 3
    FakeSession.log.clear()
    compare([("a", [2.0] * 9)], {}, seconds=1, warmup=1)
    assert len(FakeSession.log) == 1 + 2, "four times as long is the most"


@pytest.mark.usefixtures("fake")
def test_a_quick_model_runs_once_before_each_run_that_counts():
    quick = [0.02, *[0.04, 0.02] * 3]
    first, slow = compare([("q", [0.02, *quick]), ("s", [1.0] * 5)], {}, seconds=4, warmup=0, threads=1)
    assert "".join(FakeSession.log) == "qs" + "qs" + "sqq" + "qqs" + "sqq"
    assert (first.wall, slow.wall) == (pytest.approx(20), 1000)


@pytest.mark.usefixtures("fake")
def test_of_three_sessions_the_middle_ratio_counts():
    takes = iter([(10.0, 5.0), (10.0, 7.0), (12.0, 5.0)])

    def opened(model, **_):
        if model[0] == "a":
            opened.now = next(takes)
        return FakeSession(model[0], [opened.now[model[0] == "b"]] * 3)

    latency.open_session = opened
    first, second = latency.compare_anew([("a",), ("b",)], {}, seconds=3, threads=1)
    assert first.compared == 10_000
    assert ratio(first, second) == 0.5


@pytest.mark.usefixtures("fake")
def test_one_round_is_run_however_long_it_takes():
    (only,) = compare([("a", [5.0, 4.0])], {}, seconds=1, warmup=1)
    assert only.wall == 4000
