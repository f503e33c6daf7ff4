"""Calibration equals brute force for every geometry, whatever the batches are, in bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.passes.instrument import find_taps
from onnx_prune.passes.labels import label_channels
from onnx_prune.passes.model import load
from onnx_prune.passes.shapes import tensor_facts
from onnx_prune.runtime.calibrate import Calibration, calibrate, iterate_rows, sample_rows
from onnx_prune.runtime.data import open_data
from onnx_prune.runtime.inputs import model_inputs
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.sources import Batch

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
    "transposed-shape": ("ConvTranspose <strides = [2, 2], output_shape = [6, 8]>", (4, 3, 4), (4, 3, 3, 3)),
    "gemm": ("Gemm", (5,), (5, 3)),
    "gemm-transposed": ("Gemm <transB = 1>", (5,), (3, 5)),
    "matmul": ("MatMul", (3, 2, 5), (5, 4)),
    "matmul-vector": ("MatMul", (3, 5), (5,)),
}  # fmt: skip


def network(operation: str, shape, weight, dtype: str = "float", seed: int = 0) -> onnx.ModelProto:
    """y = operation(x, w)."""
    dims = ", ".join(map(str, shape))
    text = f"""
    <ir_version: 8, opset_import: ["": 17]>
    g ({dtype}[N, {dims}] x) => ({dtype}[] y) {{ y = {operation} (x, w) }}
    """
    model = parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    numbers = np.random.default_rng(seed).standard_normal(weight)
    kind = {"float": np.float32, "float16": np.float16, "double": np.float64}[dtype]
    model.graph.initializer.append(numpy_helper.from_array(numbers.astype(kind), "w"))
    return model


def labelled(model: onnx.ModelProto, x: np.ndarray):
    graph = load(model)
    labels = label_channels(graph, tensor_facts(graph, {graph.source.graph.input[0].name: (1, *x.shape[1:])}))
    return labels, find_taps(labels, labels.consumers)


def batches(x: np.ndarray, size: int = 2) -> list[Batch]:
    return [Batch({"x": x[i : i + size]}, None) for i in range(0, len(x), size)]


def values(shape, images: int = 5, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((images, *shape)).astype(dtype) + dtype(0.5)


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


def assert_moments(moments, u: np.ndarray):
    assert moments.rows == len(u)
    assert moments.mean == pytest.approx(u.mean(0), rel=1e-5, abs=1e-6)
    assert moments.second == pytest.approx(u.T @ u / len(u), rel=1e-5, abs=1e-6)
    assert (moments.second == moments.second.T).all()


UNGROUPED = [name for name in GEOMETRIES if "grouped" not in name]


@pytest.mark.parametrize("name", UNGROUPED)
def test_moments_of_all_positions_equal_brute_force(name):
    operation, shape, weight = GEOMETRIES[name]
    model, x = network(operation, shape, weight), values(shape)
    labels, taps = labelled(model, x)
    moments = calibrate(labels, batches(x), taps, ALL)["y"]
    assert moments.channels * moments.kernel == moments.second.shape[0]
    assert_moments(moments, brute_force(model, x))


def test_brute_force_tells_a_wrong_geometry():
    x = values((4, 6, 5))
    labels, taps = labelled(network("Conv <pads = [1, 0, 0, 1]>", (4, 6, 5), (2, 4, 2, 2)), x)
    other = brute_force(network("Conv <pads = [0, 1, 1, 0]>", (4, 6, 5), (2, 4, 2, 2)), x)
    with pytest.raises(AssertionError):
        assert_moments(calibrate(labels, batches(x), taps, ALL)["y"], other)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_weights_times_sampled_patches_are_the_sampled_outputs(name):
    """The pairing of inputs and targets, and groups and transposed weights with it."""
    operation, shape, weight = GEOMETRIES[name]
    model, x = network(operation, shape, weight), values(shape)
    _, taps = labelled(model, x)
    (X,) = sample_rows(model, taps.only(["y"]), batches(x, 2), SOME)
    w = numpy_helper.to_array(model.graph.initializer[0])
    if w.ndim == 1:
        assert X @ w == pytest.approx(open_session(model).run({"x": x})["y"].ravel()[: len(X)], abs=1e-4)
        return
    (Y,) = sample_rows(model, taps.outputs({"y": "y"}), batches(x, 3), SOME)
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
def test_a_group_convolution_has_moments_of_each_group(name):
    operation, shape, weight = GEOMETRIES[name]
    model, x = network(operation, shape, weight), values(shape)
    labels, taps = labelled(model, x)
    (rows,) = sample_rows(model, taps, batches(x), ALL)
    parts = calibrate(labels, batches(x), taps, ALL).groups("y")
    assert len(parts) == 2
    for moments, u in zip(parts, np.split(rows.astype(np.float64), 2, axis=1), strict=True):
        assert moments.channels == 3
        assert_moments(moments, u)


def test_a_transposed_gemm_reads_its_columns():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[5, 4] x) => (float[4, 3] y) { y = Gemm <transA = 1> (x, w) }""")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((5, 3), np.float32), "w"))
    graph = load(model)
    labels = label_channels(graph, tensor_facts(graph))
    x = values((4,), 5)
    assert_moments(calibrate(labels, [Batch({"x": x}, None)], find_taps(labels, labels.consumers), ALL)["y"], x.T)


@pytest.mark.parametrize(("dtype", "kind"), [("float16", np.float16), ("double", np.float64)])
def test_other_types_are_read_as_float32(dtype, kind):
    model, x = network("MatMul", (3, 6), (6, 2), dtype), values((3, 6), dtype=kind)
    labels, taps = labelled(model, x)
    assert_moments(calibrate(labels, batches(x), taps, ALL)["y"], x.reshape(-1, 6).astype(np.float64))


def test_images_that_are_folded_into_the_batch_are_all_sampled():
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 2, 4, 5] x) => (float[M, 2, 4, 5] y)
    <int64[4] s = {-1, 2, 4, 5}> { f = Reshape (x, s) y = Conv <pads = [1, 1, 1, 1]> (f, w) }
    """
    model = parser.parse_model(text)
    plain = network("Conv <pads = [1, 1, 1, 1]>", (2, 4, 5), (2, 2, 3, 3))
    model.graph.initializer.append(plain.graph.initializer[0])
    x = values((3, 2, 4, 5))
    labels, taps = labelled(model, x)
    assert_moments(calibrate(labels, batches(x), taps, ALL)["y"], brute_force(plain, x.reshape(-1, 2, 4, 5)))


def test_channels_last_graphs_are_read_like_others():
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 4, 5, 3] x) => (float[N, 4, 5, 2] z)
    {
      t = Transpose <perm = [0, 3, 1, 2]> (x)
      y = Conv <pads = [1, 1, 1, 1]> (t, w)
      z = Transpose <perm = [0, 2, 3, 1]> (y)
    }
    """
    model = parser.parse_model(text)
    plain = network("Conv <pads = [1, 1, 1, 1]>", (3, 4, 5), (2, 3, 3, 3))
    model.graph.initializer.append(plain.graph.initializer[0])
    x = values((3, 4, 5))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    labels, taps = labelled(model, last)
    assert_moments(calibrate(labels, batches(last), taps, ALL)["y"], brute_force(plain, x))


@pytest.mark.parametrize("how", [ALL, SOME])
def test_the_batch_size_changes_nothing(how):
    model, x = network("Conv <pads = [1, 1, 1, 1]>", (3, 4, 5), (2, 3, 3, 3)), values((3, 4, 5), 7)
    labels, taps = labelled(model, x)
    one, *others = (calibrate(labels, batches(x, size), taps, how)["y"] for size in (1, 3, 7))
    for other in others:
        assert other.rows == one.rows
        assert other.second == pytest.approx(one.second, rel=1e-5, abs=1e-6)


def test_another_seed_samples_other_positions():
    model, x = network("Conv <pads = [1, 1, 1, 1]>", (3, 4, 5), (2, 3, 3, 3)), values((3, 4, 5))
    _, taps = labelled(model, x)
    first, again, other = (
        sample_rows(model, taps, batches(x), Calibration(positions=3, seed=s, device="cpu"))[0] for s in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_rows_of_a_cut_model_belong_to_those_of_the_original():
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 5, 6] x) => (float[N, 2, 5, 6] y)
    { a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) y = Conv <pads = [1, 1, 1, 1]> (r, v) }
    """
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal(s).astype(np.float32) for s in ((6, 3, 3, 3), (2, 6, 3, 3)))
    models = []
    for kept in (range(6), (1, 4)):
        model = parser.parse_model(text)
        cut = {"w": w[list(kept)], "v": v[:, list(kept)]}
        model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in cut.items())
        models.append(model)
    x = values((3, 5, 6))
    _, taps = labelled(models[0], x)
    (whole,), (part,) = (sample_rows(m, taps.only(["y"]), batches(x), SOME) for m in models)
    assert part == pytest.approx(whole.reshape(len(whole), 6, 9)[:, [1, 4]].reshape(len(whole), -1), abs=1e-5)
    targets, sources = sample_rows(models[0], taps.outputs({"y": "y", "a": "r"}), batches(x), SOME)
    assert targets == pytest.approx(whole @ v.reshape(2, -1).T, abs=1e-4)
    assert sources == pytest.approx(whole.reshape(len(whole), 6, 9)[:, :, 4], abs=1e-6), "the middle of the patch"


def test_contractions_that_are_too_wide_keep_samples():
    model, x = network("Gemm", (40,), (40, 3)), values((40,), 30)
    labels, taps = labelled(model, x)
    moments = calibrate(labels, batches(x, 4), taps, Calibration(limit=1600, device="cpu"))["y"]
    assert moments.second is None
    assert (moments.samples == x[:10]).all()
    assert moments.rows == 30
    assert moments.mean == pytest.approx(x.mean(0), abs=1e-6)


def test_statistics_of_channels_are_those_of_the_whole_tensor():
    text = """
    <ir_version: 8, opset_import: ["": OPSET]>
    g (float[N, 3, 5, 6] x) => (float[N, 2, 5, 6] y) { r = Relu (x) y = Conv <pads = [1, 1, 1, 1]> (r, w) }
    """
    x = values((3, 5, 6))
    relu = np.maximum(x, 0).transpose(1, 0, 2, 3).reshape(3, -1)
    for opset in (11, 17, 21):
        model = parser.parse_model(text.replace("OPSET", str(opset)))
        model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w"))
        labels, taps = labelled(model, x)
        how = Calibration(positions=1, activations=True, device="cpu")
        found = calibrate(labels, batches(x), taps, how).activations["r"]
        assert found.zeros == pytest.approx((relu == 0).mean(1), abs=1e-6)
        assert found.mean == pytest.approx(relu.mean(1), rel=1e-5)
        assert found.variance == pytest.approx(relu.var(1), rel=1e-4)


def test_memory_does_not_grow_with_the_images():
    model, x = network("Conv <pads = [1, 1, 1, 1]>", (8, 12, 12), (2, 8, 3, 3)), values((8, 12, 12), 16)
    labels, taps = labelled(model, x)
    peaks = []
    for repeats in (2, 20, 200):
        tracemalloc.start()
        calibrate(labels, itertools.repeat(Batch({"x": x}, None), repeats), taps, ALL)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_rows_come_batch_by_batch():
    model, x = network("Conv", (3, 4, 5), (2, 3, 3, 3)), values((3, 4, 5))
    _, taps = labelled(model, x)
    assert [r.shape for (r,) in iterate_rows(model, taps, batches(x), SOME)] == [(6, 27), (6, 27), (3, 27)]


def test_data_of_another_size_and_no_data_are_refused():
    model, x = network("Conv", (3, 4, 5), (2, 3, 3, 3)), values((3, 4, 5))
    labels, taps = labelled(model, x)
    with pytest.raises(UsageError, match="size"):
        calibrate(labels, batches(values((3, 5, 5))), taps)
    with pytest.raises(UsageError, match="no image"):
        calibrate(labels, [], taps)


def test_activations_that_are_not_finite_are_refused():
    model, x = network("Conv", (3, 4, 5), (2, 3, 3, 3)), values((3, 4, 5))
    x[0, 0, 0, 0] = np.inf
    labels, taps = labelled(model, x)
    with pytest.raises(ReadError, match="not finite"):
        calibrate(labels, batches(x), taps, ALL)


def test_the_demo_model_is_calibrated_whole():
    graph = load(digits_model())
    labels = label_channels(graph, tensor_facts(graph))
    data = open_data(digits_data()[1], model_inputs(graph.source), samples=100)
    seen = []
    moments = calibrate(labels, data, progress=seen.append)
    consumers = {graph.gs.nodes[c.node].outputs[0].name for c in labels.consumers if (c.labels >= 0).any()}
    assert set(moments) == consumers
    assert moments.graph_sha256 == graph.sha256()
    assert seen[-1] == 100
    for name in moments:
        assert np.linalg.eigvalsh(moments[name].covariance).min() > -1e-5


@pytest.mark.gpu
def test_a_gpu_measures_the_same_moments():
    graph = load(digits_model())
    labels = label_channels(graph, tensor_facts(graph))
    data = list(open_data(digits_data()[1], model_inputs(graph.source), samples=100))
    cpu, gpu = (calibrate(labels, data, how=Calibration(device=d)) for d in ("cpu", "cuda"))
    for name in cpu:
        assert gpu[name].second == pytest.approx(cpu[name].second, abs=1e-3 * np.abs(cpu[name].second).max())
