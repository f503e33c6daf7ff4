"""One-shot refits in a graph are those of the papers on the sampled rows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.one_shot import refit_once
from onnx_prune.passes.selection.criteria import make_criterion
from onnx_prune.passes.selection.presets import PRESETS
from onnx_prune.passes.selection.ranking import Evidence
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 6, 6] x) => (float[N, 4, 2, 2] y) <float[6,3,3,3] w1, float[6] b1, float[4,6,3,3] w2, float[4] b2> {
  a = Conv (x, w1, b1)
  r = Relu (a)
  y = Conv (r, w2, b2)
}
"""


@pytest.fixture(scope="module")
def case():
    """The groups, the inputs of the second convolution as patches (rows, C, k), and its weights."""
    model, rng = onnx.parser.parse_model(TEXT), np.random.default_rng(0)
    for value in model.graph.value_info:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.name[0] in "wb":
            numbers = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(numbers, value.name))
    del model.graph.value_info[:]
    graph = load(model)
    groups = channel_groups(label_channels(graph, tensor_facts(graph, {"x": (1, 3, 6, 6)})))
    data = [Batch({"x": rng.standard_normal((40, 3, 6, 6)).astype(np.float32)}, None)]
    moments = calibrate(groups.labelled, data, settings=Calibration(positions=4))
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    x = data[0].feeds["x"].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))  # (n, 3, 4, 4, 3, 3)
    r = np.maximum(np.einsum("nchwij,ocij->nohw", windows, weights["w1"]) + weights["b1"][:, None, None], 0)
    patches = np.lib.stride_tricks.sliding_window_view(r, (3, 3), (2, 3))  # (n, 6, 2, 2, 3, 3)
    return groups, moments, patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 6, 9), weights


def cut(case, gone):
    groups = case[0]
    (group,) = groups.free
    removed = groups.removed_labels({group.name: gone})
    return removed, apply_removal(groups.labelled, removed)


def contributions(case):
    """x of the paper: (rows * filters, channels), what each channel adds to each output."""
    _, _, patches, weights = case
    return np.einsum("rck,jck->rjc", patches, weights["w2"].reshape(4, 6, 9)).reshape(-1, 6)


def test_the_scalars_of_thinet_are_the_least_squares_ones_and_the_bias_stays(case):
    groups, moments, _, weights = case
    gone, kept = (1, 4), [0, 2, 3, 5]
    removed, graph = cut(case, gone)
    assert refit_once(groups.labelled, removed, graph, moments, "scalar") == 1
    made = {t.name: numpy_helper.to_array(t) for t in to_model(graph).graph.initializer}
    X = contributions(case)
    w, *_ = np.linalg.lstsq(X[:, kept], X.sum(1), rcond=None)
    np.testing.assert_allclose(made["w2"], weights["w2"][:, kept] * w[:, None, None], rtol=1e-4)
    np.testing.assert_array_equal(made["b2"], weights["b2"].astype(np.float32))
    centred = X - X.reshape(-1, 4, 6).mean(0).repeat(len(X) // 4, 0).reshape(4, -1, 6).transpose(1, 0, 2).reshape(-1, 6)
    other, *_ = np.linalg.lstsq(centred[:, kept], centred.sum(1), rcond=None)
    assert np.abs(other - w).max() > 1e-3, "a fit with a bias would be another"


def test_the_preset_of_thinet_is_the_paper_s(case):
    """Its objective: greedily the set whose contributions, not centred, have the least sum of squares."""
    groups, moments, *_ = case
    preset = PRESETS["thinet"]
    assert preset.reconstruct == "scalar"
    (group,) = groups.free
    ranking = make_criterion(preset.criterion).rank(group, Evidence(groups, moments=moments))
    X, chosen = contributions(case), []
    for _ in range(6):
        sums = {c: np.square(X[:, [*chosen, c]].sum(1)).sum() for c in range(6) if c not in chosen}
        chosen.append(min(sums, key=sums.__getitem__))
    assert ranking.order.tolist() == chosen
