"""Models in and out: whatever form they come in, nothing is lost, and the source is never touched."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune import Budget, ProofError, ReadError, UsageError, prune
from onnx_prune.models import digits_model, lenet5, resnet_cifar
from onnx_prune.passes.graph.export import infer_shapes, to_model
from onnx_prune.passes.graph.files import save_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import real_inputs

NEWEST_OPSET = 26  # ONNX Runtime 1.31's
HALF = Budget(macs=0.5)


def copy_of(model):
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def chain(opset=17, ir_version=8):
    """Two convolutions without anything that changed between opsets."""
    rng = np.random.default_rng(0)
    shapes = {"first": (6, 2, 3, 3), "second": (4, 6, 3, 3)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], "a", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"], "b"),
        helper.make_node("Conv", ["b", "second"], ["y"], "y", kernel_shape=[3, 3]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 2, 8, 8]), ("y", [1, 4, 4, 4]))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def with_constant_nodes(model):
    """The same model with its weights in Constant nodes."""
    moved = copy_of(model)
    nodes = [helper.make_node("Constant", [], [t.name], f"{t.name}.node", value=t) for t in moved.graph.initializer]
    nodes += moved.graph.node
    del moved.graph.node[:], moved.graph.initializer[:]
    moved.graph.node.extend(nodes)
    return moved


def decorated():
    """A model with everything around the graph that a tool may write."""
    model = with_constant_nodes(chain())
    weight = model.graph.node.pop(1)
    model.graph.initializer.append(weight.attribute[0].t)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "nobody_reads_this"))
    model.doc_string, model.domain, model.model_version = "a model", "org.example", 7
    model.producer_name, model.producer_version = "the exporter", "1.2"
    model.graph.doc_string = "a graph"
    model.metadata_props.add(key="classes", value='["cat", "dog"]')
    model.graph.metadata_props.add(key="stage", value="deployed")
    model.graph.input[0].doc_string = "an image"
    model.graph.input[0].type.denotation = "IMAGE"
    model.graph.output[0].doc_string = "logits"
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 6, 6, 6]))
    model.graph.value_info[0].metadata_props.add(key="seen", value="yes")
    model.graph.value_info.append(helper.make_tensor_value_info("first", TensorProto.FLOAT, [6, 2, 3, 3]))
    model.graph.value_info.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [4, 6, 3, 3]))
    for value in model.graph.value_info:
        value.doc_string = "a value"
    for node in model.graph.node:
        node.doc_string = f"line {node.name}"
        node.metadata_props.add(key="pkg.onnxscript.name_scopes", value=f"['', '{node.name}']")
        for attribute in node.attribute:
            attribute.doc_string = "an attribute"
    note = model.graph.quantization_annotation.add(tensor_name="a")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="nobody_reads_this")
    return model


# --- from where -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["path", "text", "bytes", "proto"])
def test_a_model_comes_as_a_path_text_bytes_or_proto(form, tmp_path):
    path = tmp_path / "chain.onnx"
    onnx.save(chain(), path)
    source = {"path": path, "text": str(path), "bytes": path.read_bytes(), "proto": onnx.load(path)}[form]
    assert prune(source, budget=HALF, measure=False).report.macs == (7344, 3672)


@pytest.mark.parametrize("opset", range(7, NEWEST_OPSET + 1))
def test_every_opset_from_7_is_pruned_and_stays_what_it_is(opset):
    result = prune(chain(opset), budget=HALF, measure=False)
    assert result.report.proof < 1e-6
    assert [(o.domain, o.version) for o in result.model.opset_import] == [("", opset)]
    assert result.model.ir_version == 8


def test_an_opset_that_onnx_runtime_does_not_know_cannot_be_proved():
    with pytest.raises(ReadError, match="ONNX Runtime does not run the model"):
        prune(chain(onnx.defs.onnx_opset_version() + 50), budget=HALF, measure=False)


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


def test_weights_in_constant_nodes_are_cut_where_they_are():
    plain, moved = (prune(m, budget=HALF, measure=False) for m in (chain(), with_constant_nodes(chain())))
    assert [n.op_type for n in moved.model.graph.node] == ["Constant", "Constant", "Conv", "Relu", "Conv"]
    values = [numpy_helper.to_array(n.attribute[0].t) for n in moved.model.graph.node[:2]]
    for value, tensor in zip(values, plain.model.graph.initializer, strict=True):
        np.testing.assert_array_equal(value, numpy_helper.to_array(tensor))


# --- external data ----------------------------------------------------------------------------------------------------


def saved_apart(model, folder, *, attributes=False):
    path = folder / "source.onnx"
    onnx.save(
        copy_of(model),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=attributes,
    )
    return path


def test_external_weights_stay_external_and_the_source_is_not_touched(tmp_path):
    source = saved_apart(lenet5(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    result = prune(source, budget=HALF, measure=False)
    for name in ("once", "twice"):
        result.save(tmp_path / f"{name}.onnx")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    (data,) = tmp_path.glob("once.onnx.*.data")
    assert data.stat().st_size > 100 * (tmp_path / "once.onnx").stat().st_size
    once, twice = (onnx.load(tmp_path / f"{name}.onnx") for name in ("once", "twice"))
    assert once.graph == twice.graph
    assert all(t.data_location == TensorProto.DEFAULT for t in result.model.graph.initializer)  # still whole in memory
    assert weights_of(once) == weights_of(result.model)


def weights_of(model):
    return {t.name: numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}


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


# --- nothing is lost --------------------------------------------------------------------------------------------------


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


def test_pruning_does_not_change_the_given_proto():
    model = decorated()
    before = model.SerializeToString(deterministic=True)
    prune(model, budget=HALF, measure=False)
    assert model.SerializeToString(deterministic=True) == before


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


REAL = ["basic-pitch", "ppocrv3-det", "ultraface-rfb-320", "yolox_nano", "yunet-n-dynamic"]
TRAINED = ["resnet20-cifar10", "resnet20-cifar10-bn"]


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


# --- written whole or not at all --------------------------------------------------------------------------------------


def test_a_failing_checker_leaves_no_file(tmp_path):
    model = chain()
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ProofError, match=r"does not pass onnx\.checker(.|\n)*NoSuchOperator"):
        save_model(model, tmp_path / "cut.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_checker_leaves_the_file_that_was_there(tmp_path):
    there = tmp_path / "cut.onnx"
    there.write_text("an older result")
    model = chain()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(ProofError):
        save_model(model, there)
    assert there.read_text() == "an older result"
    assert list(tmp_path.iterdir()) == [there]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="output folder does not exist"):
        save_model(chain(), tmp_path / "nowhere" / "cut.onnx")


def test_inferred_shapes_are_added_and_the_weights_stay():
    model = chain()
    before = weights_of(model)
    inferred = infer_shapes(model)
    assert {v.name for v in inferred.graph.value_info} == {"a", "b"}
    assert weights_of(inferred) == before


def test_the_same_model_gives_the_same_bytes(tmp_path):
    digests = set()
    for name in ("first", "second"):
        path = prune(digits_model(), budget=HALF, measure=False).save(tmp_path / f"{name}.onnx")
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


# --- what is refused --------------------------------------------------------------------------------------------------

JUNK = {
    "nothing": b"",
    "text": b"this is not a model",
    "zeros": bytes(100),
    "json": json.dumps({"ir_version": 8}).encode(),
    "an empty proto": onnx.ModelProto(),
    "half a model": lenet5().SerializeToString()[:10000],
}


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


def test_a_path_is_a_path_like_of_any_kind(tmp_path):
    class Elsewhere:
        def __fspath__(self):
            return str(tmp_path / "chain.onnx")

    onnx.save(chain(), tmp_path / "chain.onnx")
    assert load(Elsewhere()).source == load(Path(Elsewhere())).source
