"""Normalisations that couple channels: pinned, whole groups of them, or inexact with statistics over what is left."""

from __future__ import annotations

import pytest
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model


def network(body, weights, opset=17):
    return f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[6, 3, 1, 1] w1, float[6] b1, float[2, 6, 1, 1] w2, {weights}> {{
          a = Conv (x, w1, b1)
          {body}
          y = Conv (z, w2)
        }}
        """


def last(op, weights):
    """The normalisation over the last axis of a channels-last tensor."""
    return (
        f"t = Transpose <perm = [0, 2, 3, 1]> (a)\n n = {op} (t, {weights})\n z = Transpose <perm = [0, 3, 1, 2]> (n)"
    )


WRITTEN_OUT = """
    m = ReduceMean <axes = [1]> (a)
    d = Sub (a, m)
    p = Mul (d, d)
    v = ReduceMean <axes = [1]> (p)
    e = Add (v, small)
    q = Sqrt (e)
    z = Div (d, q)
    """
COUPLING = {
    "LayerNormalization": network(last("LayerNormalization", "s, t"), "float[6] s, float[6] t"),
    "LayerNormalization written out": network(WRITTEN_OUT, "float small = {0.001}"),
    "RMSNormalization": network(last("RMSNormalization", "s"), "float[6] s", opset=23),
    "GroupNormalization": network("z = GroupNormalization <num_groups = 1> (a, s, t)", "float[6] s, float[6] t", 21),
}


def half_of(groups):
    return groups.removed_labels({g.name: range(0, g.units, 2) for g in groups.free if g.units > 1})


@pytest.mark.parametrize("text", COUPLING.values(), ids=COUPLING)
def test_coupled_channels_are_pinned(text, graphs):
    groups = graphs.groups_of(graphs.parse(text))
    assert not groups.free
    assert not any(g.inexact for g in groups.groups)
    assert any("mean" in (g.pinned or "") for g in groups.groups)


@pytest.mark.parametrize("text", COUPLING.values(), ids=COUPLING)
def test_inexact_removal_is_normalised_by_the_statistics_of_what_is_left(text, graphs):
    model = graphs.parse(text)
    groups = graphs.groups_of(model, inexact=True)
    assert [(g.units, g.inexact) for g in groups.free] == [(6, True)]
    removed, feeds = half_of(groups), graphs.random_feeds(model)
    run = graphs.reference if "GroupNorm" not in text else graphs.ort
    cut = run(to_model(apply_removal(groups.labelled, removed)), feeds)
    assert graphs.difference(cut, run(to_model(silence(groups.labelled, removed)), feeds)) < 2e-6
    groups.labelled.coupled.clear()  # and the twin that keeps the old statistics is another function
    assert graphs.difference(cut, run(to_model(silence(groups.labelled, removed)), feeds)) > 1e-3


def test_whole_groups_go_exactly_with_one_scale_a_group_as_opset_18_has_it(graphs):
    text = network("z = GroupNormalization <num_groups = 3> (a, s, t)", "float[3] s, float[3] t", opset=18)
    model = graphs.parse(text)
    groups = graphs.groups_of(model)
    assert [(g.units, g.inexact) for g in groups.free] == [(3, False)]
    removed, feeds = groups.removed_labels({groups.free[0].name: [1]}), graphs.random_feeds(model)
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6
    assert next(n for n in cut.graph.node if n.op_type == "GroupNormalization").attribute[0].i == 2


def test_inexact_groups_lose_the_same_positions_in_each_group(graphs):
    """Three positions are finer than two groups."""
    text = network("z = GroupNormalization <num_groups = 2> (a, s, t)", "float[6] s, float[6] t", opset=21)
    model = graphs.parse(text)
    assert [(g.units, g.inexact) for g in graphs.groups_of(model).free] == [(2, False)]
    groups = graphs.groups_of(model, inexact=True)
    assert [(g.units, g.inexact) for g in groups.free] == [(3, True)]
    removed, feeds = half_of(groups), graphs.random_feeds(model)
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6
