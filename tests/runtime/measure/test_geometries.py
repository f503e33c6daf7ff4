"""Patches of every operator are those that its weights meet: against impulses, and against its own outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate, sample_rows
from onnx_prune.runtime.session import open_session

ALL = Calibration(positions=10**9, device="cpu")
SOME = Calibration(positions=3, seed=5, device="cpu")

# operator with attributes, input without batch, weight
GEOMETRIES = {
    "plain": ("Conv <pads = [1, 1, 1, 1]>", (4, 5, 6), (2, 4, 3, 3)),
    "valid": ("Conv", (4, 5, 6), (2, 4, 3, 2)),
    "pointwise": ("Conv", (4, 5, 6), (2, 4, 1, 1)),
    "pointwise-strided": ("Conv <strides = [2, 3]>", (4, 5, 6), (2, 4, 1, 1)),
    "strided-asymmetric": ("Conv <strides = [2, 1], pads = [0, 2, 1, 1]>", (4, 6, 5), (2, 4, 3, 3)),
    "dilated": ("Conv <dilations = [2, 1], pads = [2, 0, 2, 1]>", (4, 6, 5), (2, 4, 3, 3)),
    "one-axis": ("Conv <pads = [2, 0], strides = [2]>", (4, 9), (2, 4, 3)),
    "three-axes": ("Conv <pads = [1, 0, 1, 0, 1, 1]>", (3, 3, 4, 3), (2, 3, 2, 2, 3)),
    "same-upper": ("Conv <auto_pad = \"SAME_UPPER\", strides = [2, 2]>", (4, 6, 5), (2, 4, 3, 2)),
    "same-lower": ("Conv <auto_pad = \"SAME_LOWER\", strides = [2, 1]>", (4, 6, 5), (2, 4, 3, 2)),
    "auto-valid": ("Conv <auto_pad = \"VALID\", strides = [2, 2]>", (4, 6, 5), (2, 4, 3, 2)),
    "grouped": ("Conv <group = 2, pads = [1, 1, 1, 1]>", (6, 4, 5), (4, 3, 3, 3)),
    "transposed": ("ConvTranspose <strides = [2, 2]>", (4, 3, 4), (4, 3, 2, 2)),
    "transposed-padded": ("ConvTranspose <strides = [2, 1], pads = [1, 0, 0, 1]>", (4, 3, 4), (4, 3, 3, 3)),
    "transposed-dilated": ("ConvTranspose <strides = [3], dilations = [2], output_padding = [2]>", (4, 5), (4, 3, 3)),
    "transposed-grouped": ("ConvTranspose <group = 2, strides = [2, 2]>", (6, 3, 3), (6, 2, 3, 3)),
    "transposed-upper": (
        "ConvTranspose <strides = [2, 2], auto_pad = \"SAME_UPPER\", output_shape = [6, 8]>", (4, 3, 4), (4, 3, 3, 3),
    ),
    "transposed-lower": (
        "ConvTranspose <strides = [2, 2], auto_pad = \"SAME_LOWER\", output_shape = [6, 8]>", (4, 3, 4), (4, 3, 3, 3),
    ),
    "transposed-shape-extra": (
        "ConvTranspose <strides = [2, 2], output_shape = [6, 8], output_padding = [1, 0]>", (4, 3, 4), (4, 3, 2, 3),
    ),
    "transposed-shape": ("ConvTranspose <strides = [2, 2], output_shape = [6, 8]>", (4, 3, 4), (4, 3, 3, 3)),
    "gemm": ("Gemm", (5,), (5, 3)),
    "gemm-transposed": ("Gemm <transB = 1>", (5,), (3, 5)),
    "matmul": ("MatMul", (3, 2, 5), (5, 4)),
    "matmul-vector": ("MatMul", (3, 5), (5,)),
}  # fmt: skip


def brute_force(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """All patches, (rows, C * k) float64, from unit impulses; ONNX Runtime says what a convolution is.

    The entry (c, t) of a patch is what the operator makes of x with a weight that is 1 there and 0 elsewhere.
    """
    node, w = model.graph.node[0], numpy_helper.to_array(model.graph.initializer[0])
    linear = node.op_type in ("Gemm", "MatMul")
    transposed = node.op_type == "ConvTranspose"
    columns = []
    for index in range(x.shape[-1] if linear else w[:, 0].size if transposed else w[0].size):
        impulse = np.zeros_like(w)
        if linear:
            (impulse.T if node.attribute else impulse)[index] = 1
        elif transposed:
            c, t = np.unravel_index(index, (len(w), w[0, 0].size))
            impulse[c].reshape(w.shape[1], -1)[0, t] = 1
        else:
            impulse.reshape(len(w), -1)[0, index] = 1
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(impulse, "w"))
        y = open_session(model, device="cpu").run({"x": x})["y"].astype(np.float64)
        columns.append(y.ravel() if w.ndim == 1 else y[..., 0].ravel() if linear else y[:, 0].ravel())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(w, "w"))
    return np.stack(columns, 1)


UNGROUPED = [name for name in GEOMETRIES if "grouped" not in name]


@pytest.mark.parametrize("name", UNGROUPED)
def test_moments_of_all_positions_equal_brute_force(nets, name):
    operation, shape, weight = GEOMETRIES[name]
    model, x = nets.network(operation, shape, weight), nets.images(shape)
    labelled, taps = nets.labelled(model, x)
    moments = calibrate(labelled, nets.batches(x), taps, ALL)["y"]
    assert moments.channels * moments.kernel == moments.second.shape[0]
    nets.assert_moments(moments, brute_force(model, x))


def test_brute_force_tells_a_wrong_geometry(nets):
    x = nets.images((4, 6, 5))
    labelled, taps = nets.labelled(nets.network("Conv <pads = [1, 0, 0, 1]>", (4, 6, 5), (2, 4, 2, 2)), x)
    other = brute_force(nets.network("Conv <pads = [0, 1, 1, 0]>", (4, 6, 5), (2, 4, 2, 2)), x)
    with pytest.raises(AssertionError):
        nets.assert_moments(calibrate(labelled, nets.batches(x), taps, ALL)["y"], other)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_weights_times_sampled_patches_are_the_sampled_outputs(nets, name):
    """The pairing of inputs and targets, and groups and transposed weights with it."""
    operation, shape, weight = GEOMETRIES[name]
    model, x = nets.network(operation, shape, weight), nets.images(shape)
    _, taps = nets.labelled(model, x)
    (X,) = sample_rows(model, taps.only(["y"]), nets.batches(x, 2), SOME)
    w = numpy_helper.to_array(model.graph.initializer[0])
    if w.ndim == 1:
        assert X @ w == pytest.approx(open_session(model).run({"x": x})["y"].ravel()[: len(X)], abs=1e-4)
        return
    (Y,) = sample_rows(model, taps.outputs({"y": "y"}), nets.batches(x, 3), SOME)
    assert len(X) == len(Y) <= 5 * 3
    assert pytest.approx(expected_outputs(model, X, w), abs=1e-4) == Y
    if len(Y) > 5:
        assert np.abs(Y[::-1] - expected_outputs(model, X, w)).max() > 0.1


def expected_outputs(model: onnx.ModelProto, X: np.ndarray, w: np.ndarray) -> np.ndarray:
    node = model.graph.node[0]
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type in ("Gemm", "MatMul"):
        return X @ (w.T if attributes.get("transB") else w)
    groups = attributes.get("group", 1)
    parts = []
    for g, u in enumerate(np.split(X, groups, axis=1)):
        own = np.split(w, groups, axis=0)[g]
        if node.op_type == "ConvTranspose":
            own = np.moveaxis(own, 1, 0)
        parts.append(u @ own.reshape(len(own), -1).T)
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("name", ["grouped", "transposed-grouped"])
def test_a_group_convolution_has_moments_of_each_group(nets, name):
    operation, shape, weight = GEOMETRIES[name]
    model, x = nets.network(operation, shape, weight), nets.images(shape)
    labelled, taps = nets.labelled(model, x)
    (rows,) = sample_rows(model, taps, nets.batches(x), ALL)
    parts = calibrate(labelled, nets.batches(x), taps, ALL).groups("y")
    assert len(parts) == 2
    for moments, u in zip(parts, np.split(rows.astype(np.float64), 2, axis=1), strict=True):
        assert moments.channels == 3
        nets.assert_moments(moments, u)


def test_a_transposed_gemm_reads_its_columns(nets):
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[5, 4] x) => (float[4, 3] y) { y = Gemm <transA = 1> (x, w) }
    """
    model = nets.with_(text, w=np.ones((5, 3), np.float32))
    graph = load(model)
    labelled = label_channels(graph, tensor_facts(graph))
    x = nets.images((4,), 5)
    nets.assert_moments(
        calibrate(labelled, [Batch({"x": x}, None)], find_taps(labelled, labelled.consumers), ALL)["y"], x.T
    )


def test_images_that_are_folded_into_the_batch_are_all_sampled(nets):
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 2, 4, 5] x) => (float[M, 2, 4, 5] y)
    <int64[4] s = {-1, 2, 4, 5}> { f = Reshape (x, s) y = Conv <pads = [1, 1, 1, 1]> (f, w) }
    """
    plain = nets.network("Conv <pads = [1, 1, 1, 1]>", (2, 4, 5), (2, 2, 3, 3))
    model = nets.with_(text, w=numpy_helper.to_array(plain.graph.initializer[0]))
    x = nets.images((3, 2, 4, 5))
    labelled, taps = nets.labelled(model, x)
    nets.assert_moments(
        calibrate(labelled, nets.batches(x), taps, ALL)["y"], brute_force(plain, x.reshape(-1, 2, 4, 5))
    )


def test_channels_last_graphs_are_read_like_others(nets):
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 4, 5, 3] x) => (float[N, 4, 5, 2] z)
    {
      t = Transpose <perm = [0, 3, 1, 2]> (x)
      y = Conv <pads = [1, 1, 1, 1]> (t, w)
      z = Transpose <perm = [0, 2, 3, 1]> (y)
    }
    """
    plain = nets.network("Conv <pads = [1, 1, 1, 1]>", (3, 4, 5), (2, 3, 3, 3))
    model = nets.with_(text, w=numpy_helper.to_array(plain.graph.initializer[0]))
    x = nets.images((3, 4, 5))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    labelled, taps = nets.labelled(model, last)
    nets.assert_moments(calibrate(labelled, nets.batches(last), taps, ALL)["y"], brute_force(plain, x))
