"""A model comes in whatever form; what is no valid model is refused with the place."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_prune import Budget, ReadError, UsageError, models, prune
from onnx_prune.models import lenet5
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.reading import read_model

from .small_models import chain, saved_apart, with_constant_nodes

HALF = Budget(macs=0.5)

JUNK = {
    "nothing": b"",
    "text": b"this is not a model",
    "zeros": bytes(100),
    "json": json.dumps({"ir_version": 8}).encode(),
    "an empty proto": onnx.ModelProto(),
    "half a model": lenet5().SerializeToString()[:10000],
}


@pytest.mark.parametrize("form", ["path", "text", "bytes", "proto"])
def test_a_model_comes_as_a_path_text_bytes_or_proto(form, tmp_path):
    path = tmp_path / "chain.onnx"
    onnx.save(chain(), path)
    source = {"path": path, "text": str(path), "bytes": path.read_bytes(), "proto": onnx.load(path)}[form]
    assert prune(source, budget=HALF, measure=False).report.macs == (7344, 3672)


def test_a_path_is_a_path_like_of_any_kind(tmp_path):
    class Elsewhere:
        def __fspath__(self):
            return str(tmp_path / "chain.onnx")

    onnx.save(chain(), tmp_path / "chain.onnx")
    assert load(Elsewhere()).source == load(Path(Elsewhere())).source


def test_external_weights_of_constant_nodes_are_read(tmp_path):
    source = saved_apart(with_constant_nodes(lenet5()), tmp_path, attributes=True)
    result = prune(source, budget=HALF, measure=False)
    result.save(tmp_path / "cut.onnx")
    assert result.report.macs == prune(lenet5(), budget=HALF, measure=False).report.macs
    assert not list(tmp_path.glob("cut.onnx.*"))  # they stay in their nodes


def test_external_weights_that_are_gone_or_nowhere_are_named(tmp_path):
    source = saved_apart(chain(), tmp_path)
    for lost in (source.read_bytes(), onnx.load(source, load_external_data=False)):
        with pytest.raises(ReadError, match="it is not known where"):
            load(lost)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ReadError, match=r"external weights cannot be read(.|\n)*weights\.bin"):
        load(source)


@pytest.mark.parametrize("what", JUNK)
def test_junk_is_refused(what, tmp_path):
    with pytest.raises(ReadError):
        load(JUNK[what])
    if isinstance(JUNK[what], bytes):
        path = tmp_path / "junk.onnx"
        path.write_bytes(JUNK[what])
        with pytest.raises(ReadError, match=r"where: .*junk\.onnx"):
            load(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(ReadError, match="does not exist"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(ReadError, match="a folder"):
        load(tmp_path)


@pytest.mark.parametrize("given", [None, 3, ["model.onnx"]])
def test_what_is_no_model_at_all_is_a_wrong_use(given):
    with pytest.raises(UsageError, match="a model is a path, bytes or"):
        load(given)


def _reads_nothing(model):
    model.graph.node[2].input[0] = "nowhere"


def _twice(model):
    model.graph.node[1].output[0] = "a"


def _no_output(model):
    del model.graph.output[:]


def _no_opset(model):
    del model.opset_import[:]


def _old(model):
    model.opset_import[0].version = 6


def _output_from_nowhere(model):
    model.graph.output[0].name = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_reads_nothing, "reads 'nowhere'"),
        (_twice, "makes 'a' twice"),
        (_no_output, "no outputs"),
        (_no_opset, "does not say its opset"),
        (lambda model: model.ClearField("ir_version"), "does not say its IR version"),
        (_old, "opset 6 is too old"),
        (_output_from_nowhere, "nothing makes the graph output 'nowhere'"),
    ],
)
def test_an_invalid_graph_is_refused_with_the_place(spoil, words):
    model = chain()
    spoil(model)
    with pytest.raises(ReadError, match=words):
        load(model)


def test_a_valid_model_without_names_warns_of_nothing(capfd):
    model = chain()
    for node in model.graph.node:
        node.name = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, budget=HALF, measure=False)
    assert capfd.readouterr() == ("", "")


def _in_segments(model):
    model.graph.initializer[0].segment.end = 4


def _text_as_bytes(model):
    tensor = model.graph.initializer[0]
    tensor.data_type, tensor.raw_data = onnx.TensorProto.STRING, b""


def _of_no_function(model):
    model.graph.node[0].attribute.append(onnx.AttributeProto(name="q", type=onnx.AttributeProto.INT, ref_attr_name="a"))


@pytest.mark.parametrize("spoil", [_in_segments, _text_as_bytes, _of_no_function])
def test_what_no_runtime_reads_is_refused(spoil):
    model = onnx.load(models.digits_model())
    spoil(model)
    with pytest.raises(ReadError):
        read_model(model.SerializeToString())


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-1"), ("offset", "abc"), ("length", "9" * 5000), ("location", "w/"), ("offset", "١")]
)
def test_external_weights_say_where_they_lie_in_numbers(key, value, tmp_path):
    onnx.save_model(
        onnx.load(models.digits_model()),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    tensor = model.graph.initializer[0]
    for entry in list(tensor.external_data):
        if entry.key == key:
            tensor.external_data.remove(entry)
    tensor.external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ReadError, match=re.escape(repr(tensor.name)[1:-1])):
        read_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_group_of_a_billion_makes_no_labels(operator, monkeypatch):
    from onnx_prune.passes.channels import sweep
    from onnx_prune.pipeline.prune import inspect

    largest = []
    fresh = sweep.Sweep.fresh
    monkeypatch.setattr(sweep.Sweep, "fresh", lambda self, size: (largest.append(size), fresh(self, min(size, 99)))[1])
    weight = onnx.numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", "w"], ["y"], group=10**9)],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [weight],
    )
    with contextlib.suppress(ReadError):
        inspect(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))
    assert max(largest, default=0) <= 4
