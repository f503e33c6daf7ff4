"""Weights that lie beside a model stay in their file, and nobody holds a second copy of a large one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune import Budget, prune
from onnx_prune.models import lenet5
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph import model as model_module
from onnx_prune.passes.graph import reading
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.mapped import is_mapped, stored_bytes, tensor_array
from onnx_prune.passes.graph.model import Edited, constant_values, load
from onnx_prune.passes.graph.spill import WEIGHTS, file_bytes, weight_bytes
from onnx_prune.runtime.session import open_session

HALF = Budget(macs=0.5)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """LeNet-5 whose weights lie in a file beside it, read as if they were many."""
    monkeypatch.setattr(reading, "MAPPED_BYTES", 0)
    monkeypatch.setattr(model_module, "_LARGE_BYTES", 1)
    path = tmp_path / "source.onnx"
    model = onnx.ModelProto.FromString(lenet5().SerializeToString())
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return path


def arrays(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_weights_beside_a_model_are_views_of_their_file(saved):
    graph = load(saved)
    assert all(is_mapped(tensor) for tensor in graph.source.graph.initializer)
    for name, expected in arrays(lenet5()).items():
        values = constant_values(graph.gs.tensors()[name])
        assert isinstance(values, np.memmap)
        assert (values == expected).all()


def test_a_mapped_model_is_pruned_like_the_one_in_memory(saved, tmp_path):
    result, expected = (prune(m, budget=HALF, calibration="none", measure=False) for m in (saved, lenet5()))
    assert result.plan.removed == expected.plan.removed
    assert result.report.proof < 1e-5
    for name, values in arrays(expected.model).items():
        assert (arrays(result.model)[name] == values).all()
    result.save(tmp_path / "cut.onnx")
    assert list(tmp_path.glob("cut.onnx.*.data"))
    assert file_bytes(load(saved).source) > file_bytes(lenet5()) - 100


def test_a_mapped_model_is_calibrated_and_refitted_like_the_one_in_memory(saved, tmp_path):
    (name,) = [value.name for value in lenet5().graph.input]
    images = np.random.default_rng(0).standard_normal((32, 1, 28, 28)).astype(np.float32)
    np.savez(tmp_path / "images.npz", **{name: images})
    result, expected = (
        prune(m, budget=HALF, measure=False, calibration=tmp_path / "images.npz", criterion="l1", allocation="uniform")
        for m in (saved, lenet5())
    )
    for name, values in arrays(expected.model).items():
        assert np.abs(arrays(result.model)[name] - values).max() < 1e-5


def test_a_cut_graph_and_its_twin_hold_no_large_array(saved, graphs):
    graph = load(saved)
    groups = graphs.groups_of(graph)
    removed = groups.removed_labels({g.name: [0] for g in groups.free})
    for made in (apply_removal(groups.labelled, removed), silence(groups.labelled, removed)):
        held = [t._values for t in made.gs.tensors().values() if hasattr(t, "_values")]
        assert any(isinstance(values, Edited) for values in held)
        assert not [values for values in held if isinstance(values, np.ndarray) and values.size > 64]


def test_a_graph_is_written_into_a_folder_and_runs_from_there(saved, tmp_path):
    graph = load(saved)
    model = to_model(graph, tmp_path)
    assert weight_bytes(model) < 1024
    padding = (tmp_path / WEIGHTS).stat().st_size - weight_bytes(model, mapped=True)
    assert abs(padding) < 4096 * len(model.graph.initializer)  # small tensors stay in the model
    (name,) = [value.name for value in graph.source.graph.input]
    feeds = {name: np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)}
    whole = open_session(lenet5(), optimise=False).run(feeds)
    for source in (model, graph.source):
        shown = open_session(source, optimise=False).run(feeds)
        assert all((shown[name] == whole[name]).all() for name in whole)


def test_values_of_four_bits_are_read_from_the_file(tmp_path):
    values = helper.make_tensor("q", TensorProto.INT4, [5], [-8, 7, 1, 0, -1])
    (tmp_path / "w").write_bytes(b"ab" + values.raw_data if values.raw_data else b"ab" + packed(values))
    tensor = TensorProto(name="q", data_type=TensorProto.INT4, dims=[5], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", str(tmp_path / "w")), ("offset", "2"), ("length", "3")):
        tensor.external_data.add(key=key, value=value)
    assert stored_bytes(tensor) == 3
    assert (tensor_array(tensor).astype(int) == [-8, 7, 1, 0, -1]).all()


def packed(tensor):
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def spoil_length(path, model):
    path.with_name("weights.data").write_bytes(path.with_name("weights.data").read_bytes()[:-1])


def point_outside(path, model):
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.data"
    path.write_bytes(model.SerializeToString())


def say_another_length(path, model):
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "length":
            entry.value = "4"
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_length, "ends before"),
        (point_outside, "not a file beside"),
        (say_another_length, "takes .* bytes and has 4"),
    ],
)
def test_a_file_that_does_not_hold_the_weights_is_refused(spoil, words, saved):
    spoil(saved, onnx.load(saved, load_external_data=False))
    with pytest.raises(ReadError, match=f"external weights cannot be read(.|\n)*{words}"):
        load(saved)


@pytest.mark.parametrize("change", ["short", "long", "type"])
def test_stored_bytes_of_another_length_are_refused(change):
    model = onnx.ModelProto.FromString(lenet5().SerializeToString())
    tensor = model.graph.initializer[0]
    if change == "type":
        tensor.data_type = 99
    else:
        tensor.raw_data = tensor.raw_data[:-1] if change == "short" else tensor.raw_data + b"\0"
    with pytest.raises(ReadError, match="which ONNX does not have" if change == "type" else "bytes, where its type"):
        load(model)
