"""The analysis grows with the number of nodes, not with its square."""

import time

import pytest
from onnx_prune.models import resnet_cifar
from onnx_prune.passes.graph.model import load


@pytest.fixture
def seconds(groups_of):
    """Depth of a residual network -> nodes, and the processor's seconds to analyse it, of three runs the best."""

    def measure(depth):
        graph = load(resnet_cifar(depth))
        times = []
        for _ in range(3):
            start = time.process_time()
            groups_of(graph)
            times.append(time.process_time() - start)
        return len(graph.gs.nodes), min(times)

    return measure


def test_five_times_the_nodes_take_less_than_ten_times_the_time(seconds):
    (few, short), (many, long) = seconds(86), seconds(434)
    assert many > 4.9 * few
    assert long < 10 * short


@pytest.mark.slow
def test_ten_thousand_nodes_take_less_than_five_seconds(seconds):
    nodes, time_taken = seconds(2858)
    assert nodes > 10_000
    assert time_taken < 5
