"""Names, domains, notes and metadata that are not UTF-8 are refused, wherever they stand."""

from __future__ import annotations

import onnx
import pytest
from onnx_prune import models
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.reading import read_model

MARK = b"QQQQ"
PLACES = {
    "producer": lambda m: setattr(m, "producer_name", MARK.decode()),
    "note": lambda m: setattr(m, "doc_string", MARK.decode()),
    "metadata": lambda m: m.metadata_props.add(key=MARK.decode(), value="a"),
    "domain": lambda m: m.opset_import.add(domain=MARK.decode(), version=1),
    "a node's name": lambda m: setattr(m.graph.node[0], "name", MARK.decode()),
    "a tensor": lambda m: setattr(m.graph.initializer[0], "doc_string", MARK.decode()),
    "a dimension": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", MARK.decode()),
    "a function": lambda m: m.functions.add(name=MARK.decode(), domain="my"),
}


@pytest.mark.parametrize("place", PLACES)
def test_bytes_that_are_not_text_are_refused(place):
    model = onnx.load(models.digits_model())
    PLACES[place](model)
    content = model.SerializeToString()
    assert content.count(MARK) == 1
    with pytest.raises(ReadError, match=r"not text \(UTF-8\)"):
        read_model(content.replace(MARK, b"\xff\xfe\xff\xfe"))


def test_text_of_any_alphabet_is_read():
    model = onnx.load(models.digits_model())
    model.graph.node[0].name, model.producer_name = "层", "Πρ"
    assert read_model(model.SerializeToString())[0].graph.node[0].name == "层"
