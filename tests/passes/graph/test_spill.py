"""A model without its weights: they lie in a file, or are gone, and the rest is as it was."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.models import lenet5
from onnx_prune.passes.graph.mapped import is_external
from onnx_prune.passes.graph.spill import WEIGHTS, file_bytes, spill, weight_bytes, without_weights

from .small_models import copy_of, saved_apart, weights_of


def test_weights_lie_in_the_file_and_are_read_from_there(tmp_path):
    model = lenet5()
    light = spill(model, tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size >= sum(t.nbytes for t in map(numpy_helper.to_array, large(model)))
    assert [t.name for t in large(model)] == [t.name for t in light.graph.initializer if is_external(t)]
    onnx.save(light, tmp_path / "light.onnx")
    assert weights_of(onnx.load(tmp_path / "light.onnx")) == weights_of(model)


def large(model):
    return [t for t in model.graph.initializer if numpy_helper.to_array(t).nbytes >= 1024]


def test_every_weight_starts_on_a_page(tmp_path):
    light = spill(lenet5(), tmp_path, name="other.bin")
    entries = [{e.key: e.value for e in t.external_data} for t in light.graph.initializer if is_external(t)]
    assert {entry["location"] for entry in entries} == {"other.bin"}
    assert [int(entry["offset"]) % 4096 for entry in entries] == [0] * len(entries)


def test_weights_that_lie_elsewhere_come_along(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    model = lenet5()
    source = onnx.load(saved_apart(model, tmp_path / "source"), load_external_data=False)
    onnx.save(spill(source, tmp_path / "target", tmp_path / "source"), tmp_path / "target" / "light.onnx")
    assert weights_of(onnx.load(tmp_path / "target" / "light.onnx")) == weights_of(model)


def test_a_skeleton_has_all_but_the_values():
    model = lenet5()
    before = copy_of(model)
    skeleton = without_weights(model)
    assert model == before
    assert [(t.name, list(t.dims)) for t in skeleton.graph.initializer] == [
        (t.name, list(t.dims)) for t in model.graph.initializer
    ]
    assert skeleton.ByteSize() < model.ByteSize() / 50
    del skeleton.graph.initializer[:], before.graph.initializer[:]
    assert skeleton == before


@pytest.mark.parametrize("field", ["raw_data", "float_data"])
def test_the_size_of_a_file_is_known_without_writing_it(field, tmp_path):
    model = lenet5()
    if field == "float_data":
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, values.shape, values.ravel()))
    onnx.save(model, tmp_path / "model.onnx")
    assert file_bytes(model) == pytest.approx((tmp_path / "model.onnx").stat().st_size, abs=500)
    assert weight_bytes(model) == sum(numpy_helper.to_array(t).nbytes for t in model.graph.initializer)


def test_a_large_string_stays(tmp_path):
    model = lenet5()
    model.graph.initializer.append(helper.make_tensor("names", TensorProto.STRING, [200], [b"a long name"] * 200))
    light = spill(model, tmp_path)
    assert light.graph.initializer[-1] == model.graph.initializer[-1]
