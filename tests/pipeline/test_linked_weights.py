"""Caches keep a model and its weights as links into one folder: whole runs work on them."""

from __future__ import annotations

import onnx
import onnx_prune
import pytest
from onnx_prune import models
from onnx_prune.passes.graph import reading
from onnx_prune.passes.graph.files import save_model


@pytest.fixture(params=["in memory", "in its file"])
def mapped(request, monkeypatch):
    """Whether weights stay in their file, as large ones do."""
    if request.param == "in its file":
        monkeypatch.setattr(reading, "MAPPED_BYTES", 0)
    return request.param == "in its file"


def stored(folder):
    save_model(onnx.load(models.digits_model()), folder / "m.onnx", external=True)
    (weights,) = folder.glob("*.data")
    return weights


def pruned(path, tmp_path):
    result = onnx_prune.prune(path, measure=False, calibration="none")
    again = onnx_prune.inspect(result.save(tmp_path / "slim.onnx"))
    assert again.cost.macs(again.cost.units) == result.report.macs[1]
    assert onnx_prune.apply(path, result.plan, measure=False).report.macs == result.report.macs


def test_links_into_the_folder_of_a_cache(tmp_path, mapped):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    weights = stored(tmp_path / "snapshot")
    for blob, file in (("a", tmp_path / "snapshot" / "m.onnx"), ("b", weights)):
        file.rename(tmp_path / "blobs" / blob)
        file.symlink_to(f"../blobs/{blob}")
    pruned(tmp_path / "snapshot" / "m.onnx", tmp_path)


def test_a_link_to_a_folder_in_the_place_that_the_model_names(tmp_path, mapped):
    weights = stored(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("deep")
    weights.rename(tmp_path / "deep" / "w")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "link/w" if entry.key == "location" else entry.value
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    pruned(tmp_path / "m.onnx", tmp_path)


def test_the_folder_itself_may_be_a_link(tmp_path, mapped):
    (tmp_path / "real").mkdir()
    stored(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    pruned(tmp_path / "link" / "m.onnx", tmp_path)


def test_weights_may_have_another_name_elsewhere(tmp_path, mapped):
    (tmp_path / "another name").hardlink_to(stored(tmp_path))
    pruned(tmp_path / "m.onnx", tmp_path)
