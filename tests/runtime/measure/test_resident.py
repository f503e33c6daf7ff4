"""Sums that stay where the model runs are those of the host. The same code runs on a CPU, where these tests run it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune import models
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate
from onnx_prune.runtime.measure.resident import ResidentSums
from onnx_prune.runtime.measure.sums import GramProducts
from onnx_prune.runtime.session import fetched, open_session

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

TWICE = """
<ir_version: 8, opset_import: ["": 13]>
g (float[N, 3] x) => (float[N, 3] y, float[N] z) <int64[1] rows = {1}> {
  y = Add (x, x)
  z = ReduceSum <keepdims = 0> (x, rows)
}
"""


def summed(parts, insides, groups, device="cpu"):
    kernel, width = parts[0].shape[2:]
    sums = ResidentSums(kernel, width // groups, groups, device, 1)
    for part, inside in zip(parts, insides, strict=True):
        sums.add(sums._step.placed(part), inside)
    return [accumulator.result() for accumulator in sums.accumulators(GramProducts(device, 1))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-20])
@pytest.mark.parametrize("groups", [1, 2])
def test_sums_are_those_of_the_rows_in_float64(groups, scale, device):
    rng = np.random.default_rng(0)
    parts = [(rng.standard_normal((n, 5, 3, 8)) * scale).astype(np.float32) for n in (4, 2)]
    insides = [(rng.random((n, 5, 3, 1)) < 0.8).astype(np.float32) for n in (4, 2)]
    found = summed(parts, insides, groups, device)
    whole = np.concatenate([p.astype(np.float64) * i for p, i in zip(parts, insides, strict=True)])
    for group, moments in enumerate(found):
        u = whole.reshape(30, 3, groups, -1)[:, :, group].transpose(0, 2, 1).reshape(30, -1)  # channel-major
        assert moments.rows == 30
        assert np.allclose(moments.mean, u.mean(axis=0), rtol=1e-5, atol=1e-6 * scale)
        assert np.allclose(moments.second, u.T @ u / 30, rtol=1e-5, atol=1e-6 * scale**2)
    assert len(found) == groups


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("net", ["digits", "mobilenet"])
def test_moments_of_a_network_are_those_of_the_host(net, device):
    model = models.digits_model() if net == "digits" else models.mobilenet_v2(10, 32)
    graph = load(model)
    labelled = label_channels(graph, tensor_facts(graph))
    shape = (1, 8, 8) if net == "digits" else (3, 32, 32)
    images = np.random.default_rng(0).random((12, *shape), np.float32)
    data = list(open_data(images, model_inputs(graph.source), batch=5))
    limit = 256 << 20 if net == "digits" else 1 << 21
    host, there = (
        calibrate(labelled, data, settings=Calibration(activations=True, device=d, resident=r, limit=limit))
        for d, r in (("cpu", False), (device, True))
    )
    assert host.consumers.keys() == there.consumers.keys()
    assert any(m.second is None for of in host.consumers.values() for m in of) == (net == "mobilenet")
    for name, of in host.consumers.items():
        for mine, other in zip(of, there.consumers[name], strict=True):
            assert mine.rows == other.rows
            assert np.allclose(mine.mean, other.mean, rtol=1e-4, atol=1e-5 * np.abs(mine.mean).max())
            if mine.second is None:
                assert np.allclose(mine.samples, other.samples, rtol=1e-4, atol=1e-5)
            else:
                assert np.allclose(mine.second, other.second, rtol=1e-4, atol=1e-5 * np.abs(mine.second).max())
    for name, statistics in host.activations.items():
        assert np.allclose(statistics.mean, there.activations[name].mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_what_stays_there_can_be_read_by_another_model(device):
    model = onnx.parser.parse_model(TWICE)
    session = open_session(model, device=device)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = session.run_resident({"x": x})
    assert np.array_equal(fetched(first["y"]), 2 * x)
    assert first["y"].device_name() == device
    second = session.run_resident({"x": first["y"]}, ["z"])
    assert list(second) == ["z"]
    assert np.array_equal(fetched(second["z"]), (2 * x).sum(axis=1))
    with pytest.raises(ReadError, match="cannot run the model"):
        session.run_resident({"x": np.zeros((2, 4), np.float32)})
