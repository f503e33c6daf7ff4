"""Groups that go entirely: the cut equals the silenced original, nothing empty is written, and each rule holds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.channels.vanish.vanishing import Vanishing
from onnx_prune.passes.graph.export import infer_shapes, to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts

from .. import random_graphs
from .random_blocks import compose_blocks

QUICK = settings(phases=[Phase.generate], derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def removal(groups, vanishing, seed):
    """Some of the groups that may go do, the others lose a random share: their names, and what each loses."""
    rng = np.random.default_rng(seed)
    gone = {g.name for g in groups.free if vanishing.reasons[g.name] is None and rng.random() < 0.6}
    sizes = {g.name: g.units if g.name in gone else int(rng.integers(g.units)) for g in groups.free}
    return gone, {g.name: rng.permutation(g.units)[: sizes[g.name]] for g in groups.free}


def hold(data, graphs, compose=compose_blocks):
    net, model = compose(data)
    groups = groups_of(model)
    gone, removed = removal(groups, Vanishing(groups), data.draw(st.integers(0, 99)))
    assume(gone)
    labels = groups.removed_labels(removed)
    cut, twin = to_model(apply_removal(groups.labelled, labels)), to_model(silence(groups.labelled, labels))
    onnx.checker.check_model(cut, full_check=True)
    assert not empty_tensors(cut)
    feeds = graphs.random_feeds(model)
    first, second = graphs.reference(cut, feeds), graphs.reference(twin, feeds)
    assert graphs.difference(first, second) < 1e-11, net.kinds
    cost = cost_model(groups)
    kept, recount = cost.kept(removed), cost_model(groups_of(infer_shapes(cut)))
    assert cost.macs(kept) == recount.macs(recount.units), net.kinds
    assert cost.params(kept) == recount.params(recount.units), net.kinds


def groups_of(model):
    graph = load(model)
    return channel_groups(label_channels(graph, tensor_facts(graph)))


def empty_tensors(model):
    """Float initializers, and declared shapes, without elements."""
    held = [t.name for t in model.graph.initializer if 0 in t.dims and t.data_type != onnx.TensorProto.INT64]
    declared = {v.name: v.type.tensor_type.shape.dim for v in model.graph.value_info}
    sizes = {name: [d.dim_value for d in dims if d.HasField("dim_value")] for name, dims in declared.items()}
    return held + [name for name, dims in sizes.items() if 0 in dims]


@settings(QUICK, max_examples=120)
@given(data=st.data())
def test_networks_of_branches_without_whole_groups_equal_the_silenced_ones(data, graphs):
    hold(data, graphs)


@pytest.mark.slow
@settings(QUICK, max_examples=3000)
@given(data=st.data())
def test_many_networks_of_branches_without_whole_groups_equal_the_silenced_ones(data, graphs):
    hold(data, graphs)


@settings(QUICK, max_examples=50)
@given(data=st.data())
def test_random_graphs_without_whole_groups_equal_the_silenced_ones(data, graphs):
    hold(data, graphs, random_graphs.compose)
