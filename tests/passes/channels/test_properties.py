"""Random graphs of all rule families hold the proof: cut equals silenced, in float64, for random removals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts

from .random_graphs import compose


def removal(groups, seed):
    rng = np.random.default_rng(seed)
    sizes = {g.name: int(rng.integers(0, g.units)) for g in groups.free}
    return groups.removed_labels({g.name: rng.permutation(g.units)[: sizes[g.name]] for g in groups.free})


def cut_and_twin(model, seed):
    graph = load(model)
    groups = channel_groups(label_channels(graph, tensor_facts(graph)))
    assume(any(g.units > 1 for g in groups.free))
    removed = removal(groups, seed)
    return to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))


def hold(data, graphs):
    """The property itself."""
    net, model = compose(data)
    cut, twin = cut_and_twin(model, data.draw(st.integers(0, 99)))
    onnx.checker.check_model(cut, full_check=True)
    feeds = graphs.random_feeds(model)
    first, second = graphs.reference(cut, feeds), graphs.reference(twin, feeds)
    assert graphs.difference(first, second) < 1e-11, net.kinds


QUICK = settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(data=st.data())
def test_cutting_equals_silencing_on_random_graphs(data, graphs):
    hold(data, graphs)


@pytest.mark.parametrize("end", [0, -1], ids=["first", "last"])
def test_the_property_turns_red_for_a_shifted_index(end, graphs, monkeypatch):
    """One axis of every constant loses the neighbours of the entries that it should lose."""
    right = Cut.compress

    def shifted(cut, constant, values):
        touched = [axis for axis, labels in enumerate(constant.labels) if cut.touched(labels)]
        return right(cut, constant, np.roll(values, 1, touched[end]) if touched else values)

    monkeypatch.setattr(Cut, "compress", shifted)

    @settings(QUICK, max_examples=20, phases=[Phase.generate])
    @given(data=st.data())
    def wrong(data):
        hold(data, graphs)

    with pytest.raises(AssertionError):
        wrong()


def test_no_axis_empties_where_every_group_keeps_one_unit(graphs):
    """Halves that only meet again in a Concat are two groups."""
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[6, 3, 1, 1] w1, float[2, 6, 1, 1] w2> {
          a = Conv (x, w1)
          u, v = Split <axis = 1> (a)
          p = MaxPool <kernel_shape = [1, 1]> (u)
          z = Concat <axis = 1> (v, p)
          y = Conv (z, w2)
        }
        """
    model = graphs.parse(text)
    groups = graphs.groups_of(model)
    assert [g.units for g in groups.free] == [3, 3]
    removed = groups.removed_labels({g.name: [1, 2] for g in groups.free})
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    feeds = graphs.random_feeds(model)
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6
