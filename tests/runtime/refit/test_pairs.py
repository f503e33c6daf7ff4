"""Pairs of layers are found where nothing but an activation is between them, and fitted alike in every form."""

from dataclasses import replace

import numpy as np
import pytest
from onnx_prune.models.builder import NetBuilder
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.rewrite.refit_scope import outside_refit
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.effort import make_effort
from onnx_prune.runtime.measure.calibrate import Calibration
from onnx_prune.runtime.measure.closeness import closeness
from onnx_prune.runtime.reconstruct import refit_sequentially
from onnx_prune.runtime.refit.fits import find_fits
from onnx_prune.runtime.refit.pairs import find_pairs

WITH = replace(make_effort("thorough"), pairs=(1 << 16, 40.0), epochs=8)
WITHOUT = replace(WITH, epochs=0)


def network(*, folded=True):
    """A stem, a residual block, and a layer with stride that two others read."""
    net = NetBuilder("pairs", (3, 8, 8), folded=folded, seed=3)
    x = net.relu(net.conv(net.input, "stem", 8, norm="bn0"), "relu0")
    y = net.relu(net.conv(x, "one", 12, norm="bn1"), "relu1")
    x = net.relu(net.add(net.conv(y, "two", 8, norm="bn2"), x, "sum"), "relu2")
    y = net.relu6(net.conv(x, "three", 10, stride=2, norm="bn3"), "relu3")
    x = net.relu(net.add(net.conv(y, "four", 8, norm="bn4"), net.conv(y, "five", 8, norm="bn5"), "sum2"), "relu4")
    return net.model(net.gemm(net.flatten(net.global_average_pool(x, "pool"), "flat"), "head", 5))


def cut(model):
    """Groups, what goes of the blocks' inner channels, and the cut graph."""
    groups = analyse(model).groups
    inner = {g.name: range(g.units // 2) for g in groups.free if g.name.split(".")[0] in ("one", "three")}
    assert len(inner) == 2
    removed = groups.removed_labels(inner)
    return groups, removed, apply_removal(groups.labelled, removed)


def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    images = np.einsum("ncij,cd->ndij", rng.standard_normal((count, 3, 8, 8)), rng.standard_normal((3, 3)))
    return [Batch({"input": images[i : i + 32].astype(np.float32)}, None) for i in range(0, count, 32)]


def refitted(model, effort, samples=256):
    groups, removed, graph = cut(model)
    found = refit_sequentially(groups.labelled, removed, graph, batches(samples), Calibration(), effort=effort)
    assert found.layers
    return graph


def distance(model, graph):
    return closeness(model, [to_model(graph)], batches(128, seed=0)[:1] + batches(128, seed=0)[2:])[0].distance


@pytest.mark.parametrize("folded", [True, False])
def test_layers_are_a_pair_where_one_alone_reads_the_others_activation(folded):
    groups, removed, graph = cut(network(folded=folded))
    fits, _ = find_fits(groups.labelled, removed, graph, find_taps(groups.labelled))
    pairs = find_pairs(groups.labelled, removed, graph, fits, WITH, 256)
    assert {(p.first.consumer.name, name) for name, p in pairs.items()} == {("one", "two")}
    assert not find_pairs(groups.labelled, removed, graph, fits, WITHOUT, 256)


def test_together_they_come_nearer_and_change_nothing_but_weights():
    model = network()
    alone, together = (refitted(model, effort) for effort in (WITHOUT, WITH))
    assert distance(model, together) < 0.97 * distance(model, alone)
    groups, _, bare = cut(model)
    assert not list(outside_refit(groups.labelled, together, to_model(bare), to_model(together)))


def test_exports_with_norms_folded_and_not_end_alike():
    images = batches(64, seed=4)
    models = [network(folded=folded) for folded in (True, False)]
    graphs = [refitted(model, WITH) for model in models]
    assert closeness(to_model(graphs[0]), [to_model(graphs[1])], images)[0].distance < 1e-6


def test_a_few_samples_are_fitted_one_by_one():
    model = network()
    alone, together = (to_model(refitted(model, effort, 32)) for effort in (WITHOUT, replace(WITH, pairs=(1, 0.5))))
    assert closeness(alone, [together], batches(32))[0].distance == 0
