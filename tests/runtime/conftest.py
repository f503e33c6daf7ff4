"""What the tests of calibration start from: networks of one operator, their taps, and batches of images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.runtime.data.sources import Batch

_KINDS = {"float": np.float32, "float16": np.float16, "double": np.float64}


def _network(operation, shape, weight, dtype="float"):
    """y = operation(x, w) on images of `shape`, with a random weight."""
    dims = ", ".join(map(str, shape))
    text = f"""
    <ir_version: 8, opset_import: ["": 17]>
    g ({dtype}[N, {dims}] x) => ({dtype}[] y) {{ y = {operation} (x, w) }}
    """
    numbers = np.random.default_rng(0).standard_normal(weight)
    model = _with(text, w=numbers.astype(_KINDS[dtype]))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def _with(text, **initializers):
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in initializers.items())
    return model


def _labelled(model, x):
    """The graph labelled for images like x, and the taps of all consumers."""
    graph = load(model)
    labelled = label_channels(graph, tensor_facts(graph, {graph.source.graph.input[0].name: (1, *x.shape[1:])}))
    return labelled, find_taps(labelled, labelled.consumers)


def _batches(x, size=2):
    return [Batch({"x": x[i : i + size]}, None) for i in range(0, len(x), size)]


def _images(shape, count=5, dtype=np.float32):
    return np.random.default_rng(1).standard_normal((count, *shape)).astype(dtype) + dtype(0.5)


def _assert_moments(moments, u):
    """The moments are those of the rows u, to 1e-5."""
    assert moments.rows == len(u)
    assert moments.channels * moments.kernel == u.shape[1]
    assert moments.mean == pytest.approx(u.mean(0), rel=1e-5, abs=1e-6)
    assert moments.second == pytest.approx(u.T @ u / len(u), rel=1e-5, abs=1e-6)
    assert (moments.second == moments.second.T).all()


@pytest.fixture(scope="session")
def nets():
    """Functions: network, with_, labelled, batches, images, assert_moments."""
    return SimpleNamespace(
        network=_network,
        with_=_with,
        labelled=_labelled,
        batches=_batches,
        images=_images,
        assert_moments=_assert_moments,
    )
