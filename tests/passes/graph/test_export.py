"""Back from a graph to a model: nothing is lost on the way, with or without a cut."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune import Budget, prune
from onnx_prune.models import digits_model, lenet5, resnet_cifar
from onnx_prune.passes.graph.export import infer_shapes, to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import real_inputs

from .small_models import chain, copy_of, decorated, weights_of, with_constant_nodes

HALF = Budget(macs=0.5)

REAL = ["basic-pitch", "ppocrv3-det", "ultraface-rfb-320", "yolox_nano", "yunet-n-dynamic"]

TRAINED = ["resnet20-cifar10", "resnet20-cifar10-bn"]


def lost(before, after):
    """What is in one message and not in the other, field by field; lists of tensors and value_info by name."""
    return _lost("model", before, after)


def _lost(where, before, after):
    if not hasattr(before, "ListFields"):
        return [] if before == after else [f"{where}: {before!r:.60} is {after!r:.60}"]
    if isinstance(before, TensorProto):
        return [] if _tensor(before) == _tensor(after) else [f"{where}: another tensor"]
    found = []
    fields = {d.name for d, _ in [*before.ListFields(), *after.ListFields()]}
    for field in sorted(fields):
        first, second = getattr(before, field), getattr(after, field)
        if hasattr(first, "extend"):
            if len(first) != len(second):
                found.append(f"{where}.{field}: {len(first)} became {len(second)}")
                continue
            pairs = enumerate(zip(first, second, strict=True))
            found += [line for i, (a, b) in pairs for line in _lost(f"{where}.{field}[{i}]", a, b)]
        else:
            found += _lost(f"{where}.{field}", first, second)
    return found


def _tensor(tensor):
    """Values are values, in whichever field they are."""
    return tensor.name, tensor.doc_string, tensor.data_type, list(tensor.dims), numpy_helper.to_array(tensor).tobytes()


def test_what_is_lost_is_seen():
    model = decorated()
    for field in ("doc_string", "producer_name", "metadata_props", "model_version"):
        poorer = copy_of(model)
        poorer.ClearField(field)
        assert lost(model, poorer)
    poorer = copy_of(model)
    poorer.graph.node[0].attribute[0].doc_string = ""
    poorer.graph.initializer[0].doc_string = "new"
    assert len(lost(model, poorer)) == 2


def test_loading_and_writing_back_loses_nothing():
    model = decorated()
    assert lost(model, to_model(load(copy_of(model)))) == []


def test_what_surrounds_the_graph_survives_a_cut():
    model = decorated()
    cut = prune(model, budget=HALF, measure=False).model
    changed = {"tensor", "dim_value", "value_info"}  # values and sizes; the shape of "b" was not declared before
    assert [line for line in lost(model, cut) if not changed & set(re.split(r"\W", line))] == []
    assert "nobody_reads_this" in weights_of(cut)


def test_declared_shapes_of_cut_tensors_and_weights_follow_the_cut():
    model = decorated()
    cut = prune(model, budget=HALF, measure=False).model
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in cut.graph.value_info}
    assert shapes == {"a": [1, 3, 6, 6], "b": [1, 3, 6, 6], "first": [3, 2, 3, 3], "second": [4, 3, 3, 3]}
    kept = {v.name: v.doc_string for v in cut.graph.value_info}
    assert kept == {"a": "a value", "b": "", "first": "a value", "second": "a value"}


def test_initializers_that_old_models_list_as_inputs_follow_the_cut():
    model = chain(opset=7, ir_version=3)
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
    )
    cut = prune(model, budget=HALF, measure=False).model
    declared = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in cut.graph.input}
    held = {t.name: list(t.dims) for t in cut.graph.initializer}
    assert held == {"first": [3, 2, 3, 3], "second": [4, 3, 3, 3]}
    assert declared == {"x": [1, 2, 8, 8], **held}
    onnx.checker.check_model(cut, full_check=True)


def test_initializers_that_the_cut_replaces_are_no_longer_inputs_of_an_old_model():
    model = chain(opset=9, ir_version=3)
    sizes = numpy_helper.from_array(np.array([3, 2, 3, 3], np.int64), "sizes")
    model.graph.initializer.append(sizes)
    fill = helper.make_tensor("fill", onnx.TensorProto.FLOAT, [1], [0.5])
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["sizes"], ["halves"], value=fill))
    model.graph.node.insert(1, helper.make_node("Conv", ["x", "halves"], ["c"], pads=[1, 1, 1, 1]))
    model.graph.node.insert(2, helper.make_node("Concat", ["c", "c"], ["cc"], axis=1))
    model.graph.node[3].input[0], model.graph.initializer[0].dims[1] = "cc", 6
    values = np.ones((*model.graph.initializer[0].dims,), np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "first"))
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
    )
    onnx.checker.check_model(model, full_check=True)
    cut = prune(model, budget=HALF, measure=False).model
    onnx.checker.check_model(cut, full_check=True)
    held = {t.name: list(t.dims) for t in cut.graph.initializer}
    assert {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in cut.graph.input[1:]} == held
    assert "sizes" not in held


def round_trip(model, graphs, feeds=None):
    """Load and write back without a cut: what was lost, and whether ONNX Runtime's outputs are the same bits."""
    back = to_model(load(copy_of(model)))
    feeds = feeds or graphs.random_feeds(model)
    return lost(model, back), same_bits(graphs.ort(model, feeds), graphs.ort(back, feeds))


def same_bits(first, second):
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "build",
    [lenet5, lambda: resnet_cifar(20), lambda: onnx.load(digits_model()), lambda: with_constant_nodes(lenet5())],
    ids=["lenet5", "resnet20", "digits", "constants"],
)
def test_a_round_trip_keeps_everything_and_every_bit(build, graphs):
    assert round_trip(build(), graphs) == ([], True)


@pytest.mark.shared
@pytest.mark.parametrize("name", [f"real/{n}" for n in REAL] + [f"models/{n}" for n in TRAINED])
def test_a_round_trip_of_a_real_model_keeps_everything_and_every_bit(name, graphs, shared):
    model = onnx.load(shared / f"{name}.onnx")
    feeds = graphs.random_feeds(free_sizes(model), batch=1)
    assert round_trip(model, graphs, feeds) == ([], True)


def free_sizes(model):
    """A model whose free sizes are said, so that random input can be made: 64 in space, 1 elsewhere."""
    model = copy_of(model)
    for value in real_inputs(model.graph):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value <= 0:
                dim.dim_value = 64 if axis > 1 else 1
    return model


def test_inferred_shapes_are_added_and_the_weights_stay():
    model = chain()
    before = weights_of(model)
    inferred = infer_shapes(model)
    assert {v.name for v in inferred.graph.value_info} == {"a", "b"}
    assert weights_of(inferred) == before
