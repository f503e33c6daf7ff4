"""Groups that go entirely: the cut equals the silenced original, nothing empty is written, and each rule holds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.channels.vanishing import Vanishing
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts

from .random_blocks import compose_blocks
from .random_graphs import compose

QUICK = settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def removal(groups, vanishing, seed):
    """Some of the groups that may go do, the others lose a random share."""
    rng = np.random.default_rng(seed)
    may = [g for g in groups.free if vanishing.reasons[g.name] is None]
    gone = {g.name for g in may if rng.random() < 0.6}
    return gone, groups.removed_labels(
        {g.name: np.arange(g.units) if g.name in gone else rng.permutation(g.units)[: rng.integers(g.units)] for g in groups.free}
    )


def hold(data, graphs, compose=compose_blocks):
    net, model = compose(data)
    graph = load(model)
    groups = channel_groups(label_channels(graph, tensor_facts(graph)))
    gone, removed = removal(groups, Vanishing(groups), data.draw(st.integers(0, 99)))
    assume(gone)
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    onnx.checker.check_model(cut, full_check=True)
    assert all(0 not in t.dims for t in cut.graph.initializer if t.name not in {i for n in cut.graph.node for i in n.input} or t.data_type != 7)
    feeds = graphs.random_feeds(model)
    first, second = graphs.reference(cut, feeds), graphs.reference(twin, feeds)
    assert graphs.difference(first, second) < 1e-11, net.kinds
    return gone, groups, cut


@QUICK
@given(data=st.data())
def test_random_graphs_without_whole_groups_equal_the_silenced_ones(data, graphs):
    hold(data, graphs)
