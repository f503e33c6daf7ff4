"""Latencies: plausible, comparable, bounded in time, taken in turns."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import parser
from onnx_prune.runtime.measure import latency
from onnx_prune.runtime.measure.latency import compare


def chain(length: int):
    steps = " ".join(f"t{i + 1} = MatMul(t{i}, t{i})" for i in range(length))
    return parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[192, 192] t0) => (float[192, 192] t{length}) {{ {steps} }}
    """)


FEEDS = {"t0": np.full((192, 192), 1 / 192, np.float32)}


def test_the_longer_model_takes_longer_and_time_is_bounded():
    start = time.perf_counter()
    short, long = compare([chain(1), chain(20)], FEEDS, seconds=0.3, warmup=0.1, device="cpu")
    assert 0 < 3 * short < long < 1000
    assert time.perf_counter() - start < 5


class FakeSession:
    """Takes `cost` seconds of a clock that only it moves, and logs its runs."""

    log: list[str]
    now = 0.0

    def __init__(self, name: str, costs: list[float]) -> None:
        self.name, self.costs = name, costs

    def run(self, feeds):
        type(self).log.append(self.name)
        type(self).now += self.costs.pop(0)


@pytest.fixture
def fake(monkeypatch):
    FakeSession.log, FakeSession.now = [], 0.0
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: FakeSession.now))
    monkeypatch.setattr(latency, "open_session", lambda model, **_: FakeSession(*model))


@pytest.mark.usefixtures("fake")
def test_models_run_in_turns_and_the_median_leaves_the_warm_up_out():
    a, b = [9.0, 1.0, 1.5, 7.0], [8.0, 2.0, 2.5, 2.0]
    assert compare([("a", a), ("b", b)], {}, seconds=8, warmup=0) == [1500, 2000]
    assert "".join(FakeSession.log) == "ab" + "abbaab"


@pytest.mark.usefixtures("fake")
def test_one_round_is_run_however_long_it_takes():
    assert compare([("a", [5.0, 4.0])], {}, seconds=1, warmup=1) == [4000]
