"""Calibration: whatever the batches are, in bounded memory; rows of two models that belong together."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate, iterate_rows, sample_rows

ALL = Calibration(positions=10**9, device="cpu")
SOME = Calibration(positions=3, seed=5, device="cpu")


@pytest.mark.parametrize(("dtype", "kind"), [("float16", np.float16), ("double", np.float64)])
def test_other_types_are_read_as_float32(nets, dtype, kind):
    model, x = nets.network("MatMul", (3, 6), (6, 2), dtype), nets.images((3, 6), dtype=kind)
    labelled, taps = nets.labelled(model, x)
    nets.assert_moments(calibrate(labelled, nets.batches(x), taps, ALL)["y"], x.reshape(-1, 6).astype(np.float64))


@pytest.mark.parametrize("how", [ALL, SOME])
def test_the_batch_size_changes_nothing(nets, how):
    model, x = nets.network("Conv <pads = [1, 1, 1, 1]>", (3, 4, 5), (2, 3, 3, 3)), nets.images((3, 4, 5), 7)
    labelled, taps = nets.labelled(model, x)
    one, *others = (calibrate(labelled, nets.batches(x, size), taps, how)["y"] for size in (1, 3, 7))
    for other in others:
        assert other.rows == one.rows
        assert other.second == pytest.approx(one.second, rel=1e-5, abs=1e-6)


def test_another_seed_samples_other_positions(nets):
    model, x = nets.network("Conv <pads = [1, 1, 1, 1]>", (3, 4, 5), (2, 3, 3, 3)), nets.images((3, 4, 5))
    _, taps = nets.labelled(model, x)
    first, again, other = (
        sample_rows(model, taps, nets.batches(x), Calibration(positions=3, seed=s, device="cpu"))[0] for s in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_rows_of_a_cut_model_belong_to_those_of_the_original(nets):
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 5, 6] x) => (float[N, 2, 5, 6] y)
    { a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) y = Conv <pads = [1, 1, 1, 1]> (r, v) }
    """
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal(s).astype(np.float32) for s in ((6, 3, 3, 3), (2, 6, 3, 3)))
    models = [nets.with_(text, w=w[list(kept)], v=v[:, list(kept)]) for kept in (range(6), (1, 4))]
    x = nets.images((3, 5, 6))
    _, taps = nets.labelled(models[0], x)
    (whole,), (part,) = (sample_rows(m, taps.only(["y"]), nets.batches(x), SOME) for m in models)
    assert part == pytest.approx(whole.reshape(len(whole), 6, 9)[:, [1, 4]].reshape(len(whole), -1), abs=1e-5)
    targets, sources = sample_rows(models[0], taps.outputs({"y": "y", "a": "r"}), nets.batches(x), SOME)
    assert targets == pytest.approx(whole @ v.reshape(2, -1).T, abs=1e-4)
    assert sources == pytest.approx(whole.reshape(len(whole), 6, 9)[:, :, 4], abs=1e-6), "the middle of the patch"


def test_contractions_that_are_too_wide_keep_samples(nets):
    model, x = nets.network("Gemm", (40,), (40, 3)), nets.images((40,), 30)
    labelled, taps = nets.labelled(model, x)
    moments = calibrate(labelled, nets.batches(x, 4), taps, Calibration(limit=1600, device="cpu"))["y"]
    assert moments.second is None
    assert (moments.samples == x[:10]).all()
    assert moments.rows == 30
    assert moments.mean == pytest.approx(x.mean(0), abs=1e-6)


def test_samples_of_convolutions_are_channel_major(nets):
    model, x = nets.network("Conv <pads = [1, 1, 1, 1]>", (3, 4, 5), (2, 3, 3, 3)), nets.images((3, 4, 5))
    labelled, taps = nets.labelled(model, x)
    found = calibrate(labelled, nets.batches(x), taps, replace(ALL, limit=4 * 27 * 50))["y"]
    (rows,) = sample_rows(model, taps, nets.batches(x), ALL)
    assert (found.samples == rows[:50]).all()
    assert found.mean == pytest.approx(rows.mean(0), abs=1e-5)


def test_statistics_of_channels_are_those_of_the_whole_tensor(nets):
    text = """
    <ir_version: 8, opset_import: ["": OPSET]>
    g (float[N, 3, 5, 6] x) => (float[N, 2, 5, 6] y) { r = Relu (x) y = Conv <pads = [1, 1, 1, 1]> (r, w) }
    """
    x = nets.images((3, 5, 6))
    relu = np.maximum(x, 0).transpose(1, 0, 2, 3).reshape(3, -1)
    for opset in (11, 17, 21):
        model = nets.with_(text.replace("OPSET", str(opset)), w=np.ones((2, 3, 3, 3), np.float32))
        labelled, taps = nets.labelled(model, x)
        how = Calibration(positions=1, activations=True, device="cpu")
        found = calibrate(labelled, nets.batches(x), taps, how).activations["r"]
        assert found.zeros == pytest.approx((relu == 0).mean(1), abs=1e-6)
        assert found.mean == pytest.approx(relu.mean(1), rel=1e-5)
        assert found.variance == pytest.approx(relu.var(1), rel=1e-4)


def test_memory_does_not_grow_with_the_images(nets):
    model, x = nets.network("Conv <pads = [1, 1, 1, 1]>", (8, 12, 12), (2, 8, 3, 3)), nets.images((8, 12, 12), 16)
    labelled, taps = nets.labelled(model, x)
    peaks = []
    for repeats in (2, 20, 200):
        tracemalloc.start()
        calibrate(labelled, itertools.repeat(nets.batches(x, 16)[0], repeats), taps, ALL)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_rows_come_batch_by_batch(nets):
    model, x = nets.network("Conv", (3, 4, 5), (2, 3, 3, 3)), nets.images((3, 4, 5))
    _, taps = nets.labelled(model, x)
    assert [r.shape for (r,) in iterate_rows(model, taps, nets.batches(x), SOME)] == [(6, 27), (6, 27), (3, 27)]


def test_data_of_another_size_and_no_data_are_refused(nets):
    model, x = nets.network("Conv", (3, 4, 5), (2, 3, 3, 3)), nets.images((3, 4, 5))
    labelled, taps = nets.labelled(model, x)
    with pytest.raises(UsageError, match="size"):
        calibrate(labelled, nets.batches(nets.images((3, 5, 5))), taps)
    with pytest.raises(UsageError, match="no samples"):
        calibrate(labelled, [], taps)


def test_activations_that_are_not_finite_are_refused(nets):
    model, x = nets.network("Conv", (3, 4, 5), (2, 3, 3, 3)), nets.images((3, 4, 5))
    x[0, 0, 0, 0] = np.inf
    labelled, taps = nets.labelled(model, x)
    with pytest.raises(ReadError, match="not finite"):
        calibrate(labelled, nets.batches(x), taps, ALL)


def test_the_demo_model_is_calibrated_whole():
    graph = load(digits_model())
    labelled = label_channels(graph, tensor_facts(graph))
    data = open_data(digits_data()[1], model_inputs(graph.source), samples=100)
    seen = []
    moments = calibrate(labelled, data, progress=lambda done, of: seen.append(done))
    consumers = {graph.gs.nodes[c.node].outputs[0].name for c in labelled.consumers if (c.labels >= 0).any()}
    assert set(moments) == consumers
    assert moments.graph_sha256 == graph.sha256()
    assert seen[-1] == 100
    for name in moments:
        assert np.linalg.eigvalsh(moments[name].covariance).min() > -1e-5


@pytest.mark.gpu
def test_a_gpu_measures_the_same_moments():
    graph = load(digits_model())
    labelled = label_channels(graph, tensor_facts(graph))
    data = list(open_data(digits_data()[1], model_inputs(graph.source), samples=100))
    cpu, gpu = (calibrate(labelled, data, settings=Calibration(device=d)) for d in ("cpu", "cuda"))
    for name in cpu:
        assert gpu[name].second == pytest.approx(cpu[name].second, abs=1e-3 * np.abs(cpu[name].second).max())
