"""Graphs as they are met in the field: unclean, cut short, of foreign operators, too large; each ends as it should."""

from __future__ import annotations

import itertools
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.errors import BudgetError, ReadError
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.pipeline.prune import inspect, prune, sensitivity
from onnx_prune.runtime.soundness import why_nothing

node, value = helper.make_node, helper.make_tensor_value_info


def random(*shape):
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.3).astype(np.float32)


def model_of(nodes, inputs, outputs, weights, opset=13, imports=(), ir=8):
    graph = helper.make_graph(
        nodes, "field", inputs, outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in imports)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def net(*middle, weights=(), x=("n", 3, 8, 8), y=("n", 5), **options):
    """conv, `middle` from a to b (a relu by default), conv, pool, linear."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], name="first", pads=[1] * 4),
        *(middle or [node("Relu", ["a"], ["b"])]),
        node("Conv", ["b", "w1"], ["c"], name="second", pads=[1] * 4),
        node("Relu", ["c"], ["d"]),
        node("GlobalAveragePool", ["d"], ["p"]),
        node("Flatten", ["p"], ["q"]),
        node("MatMul", ["q", "w2"], ["y"]),
    ]
    own = {"w0": random(8, 3, 3, 3), "w1": random(12, 8, 3, 3), "w2": random(12, 5)}
    return model_of(nodes, [value("x", 1, x)], [value("y", 1, y)], {**own, **dict(weights)}, **options)


def pruned(model, **settings):
    return prune(model, calibration="none", measure=False, **settings)


def same_interface_and_smaller(model, tmp_path):
    """Prune, write with the checks of every run, and run the file beside the original."""
    result = pruned(model)
    before = model.SerializeToString()
    result.save(tmp_path / "cut.onnx")
    assert model.SerializeToString() == before
    assert result.report.macs[1] < result.report.macs[0]
    assert result.report.proof < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "cut.onnx")
    return session.run(None, {i.name: random(2, 3, 8, 8) for i in session.get_inputs()})


# --- nothing can be cut -----------------------------------------------------------------------------------------------

NOTHING = {
    "no weights": model_of([node("Relu", ["x"], ["y"])], [value("x", 1, [1, 4])], [value("y", 1, [1, 4])], {}),
    "no nodes": model_of([], [value("x", 1, [1, 4])], [value("x", 1, [1, 4])], {}),
    "integers": model_of(
        [node("Add", ["x", "w"], ["y"])], [value("x", 7, [3])], [value("y", 7, [3])], {"w": np.arange(3)}
    ),
    "all pinned": model_of(
        [node("Conv", ["x", "w"], ["y"])],
        [value("x", 1, [1, 3, 8, 8])],
        [value("y", 1, None)],
        {"w": random(4, 3, 1, 1)},
    ),
    "only detections": model_of(
        [node("NonMaxSuppression", ["b", "s", "m"], ["y"])],
        [value("b", 1, [1, 9, 4]), value("s", 1, [1, 3, 9])],
        [value("y", 7, None)],
        {"m": np.array([5])},
    ),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_a_graph_in_which_nothing_can_be_cut_is_no_bug(kind):
    assert all(group.pinned for group in inspect(NOTHING[kind]).groups.groups)
    with pytest.raises(BudgetError, match="nothing in this graph can be removed: "):
        pruned(NOTHING[kind], budget=Budget(params=0.9))


# Inputs for which none can be made: what is said of their networks, and with which code pruning ends.
UNFED = {
    "a sequence": (
        helper.make_tensor_sequence_value_info("s", 1, ["n", 8]),
        [node("SequenceAt", ["s", "nought"], ["x"])],
        "an input is no tensor",
    ),
    "an optional": (
        helper.make_value_info("s", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, ["n", 8]))),
        [node("OptionalGetElement", ["s"], ["x"])],
        "an input is no tensor",
    ),
    "no shape": (value("x", 1, None), [], "an input has no shape"),
}


@pytest.mark.parametrize("kind", UNFED)
def test_inputs_that_cannot_be_made_are_looked_at_and_not_pruned(kind):
    given, first, told = UNFED[kind]
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "v"], ["y"])]
    weights = {"w": random(8, 16), "v": random(16, 4), "nought": np.int64(0)}
    model = model_of([*first, *nodes], [given], [value("y", 1, None)], weights, opset=18)
    assert "sizes of what its weights read are not known" in why_nothing(inspect(model).groups)
    with pytest.raises(ReadError, match=told):
        pruned(model)
    alone = model_of([*first, node("Neg", ["x"], ["y"])], [given], [value("y", 1, None)], weights, opset=18)
    del alone.graph.initializer[:2]
    assert not inspect(alone).groups.groups
    with pytest.raises(BudgetError, match="no weights"):
        pruned(alone)


def test_an_input_of_no_entries_is_one_of_no_entries():
    model = net(x=(0, 3, 8, 8))
    assert inspect(model).sizes == {"x": (0, 3, 8, 8)}
    with pytest.raises(BudgetError):
        pruned(model)


def test_all_reasons_are_said_those_of_the_ends_last():
    model = model_of(
        [node("MatMul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["b"]), node("MatMul", ["b", "v"], ["y"])],
        [value("x", 1, ["n", 8])],
        [value("y", 1, ["n", 4])],
        {"w": random(8, 16), "v": random(16, 4)},
    )
    told = r"all 3 groups stay: Softmax .* \(1\), graph input 'x' \(1\), graph output 'y' \(1\)$"
    with pytest.raises(BudgetError) as caught:
        pruned(model)
    assert re.search(told, caught.value.what)


LOGARITHM = [node("Log", ["x"], ["l"]), node("Conv", ["l", "w0"], ["a"], pads=[1] * 4), node("Relu", ["a"], ["b"])]


def _behind_a_logarithm():
    model = net()
    del model.graph.node[:2]
    for number, each in enumerate(LOGARITHM):
        model.graph.node.insert(number, each)
    return model


def test_drawn_images_that_the_model_cannot_take_are_given_up():
    """Nobody asked for them: the bare command goes by the weights, and shows nothing of data."""
    result = prune(_behind_a_logarithm(), measure=False)
    assert result.report.data is None
    assert result.report.macs[1] < result.report.macs[0]
    assert result.report.proof < 1e-5


@pytest.mark.parametrize("asked", [{"calibration": "synthetic"}, {"criterion": "obs"}])
def test_where_they_were_asked_for_that_is_said(asked):
    with pytest.raises(ReadError, match=r"not finite(.|\n)*--calibration none"):
        prune(_behind_a_logarithm(), measure=False, **asked)


STATEFUL = {
    "states of two layers": ((1, 1, 6), (2, 1, 6)),
    "states of a free batch": (("t", "n", 6), (2, "n", 6)),
    "a scalar": ((1, 1, 6), ()),
}


@pytest.mark.parametrize("kind", STATEFUL)
def test_many_samples_for_states_and_scalars_are_refused_in_words_one_input_is_taken(kind):
    x, h = STATEFUL[kind]
    nodes = [
        node("ReduceSum", ["h"], ["s"], keepdims=0),
        node("Add", ["x", "s"], ["a"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("MatMul", ["c", "v"], ["y"]),
    ]
    weights = {"w": random(6, 16), "v": random(16, 3)}
    model = model_of(nodes, [value("x", 1, x), value("h", 1, h)], [value("y", 1, None)], weights)
    one = {"x": random(1, 1, 6), "h": np.float32(1) + np.zeros([1 if n == "n" else n for n in h], np.float32)}
    many = {name: np.stack([array] * 8) for name, array in one.items()}
    for given in (many, lambda: [one] * 8):
        with pytest.raises(ReadError, match=r"no axis of samples in common(.|\n)*one input for one run"):
            prune(model, calibration=given, measure=False)
    assert prune(model, calibration=one, measure=False).report.macs[1] < inspect(model).cost.macs([6, 16, 3])


# --- foreign operators ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("imports", [(), ("my.own",)])
def test_an_operator_that_nobody_knows_can_be_looked_at_and_not_pruned(imports):
    model = net(node("Threshold", ["a"], ["b"], domain="my.own"), imports=imports)
    assert {group.pinned for group in inspect(model).groups.groups} != {None}
    with pytest.raises(ReadError, match=r"does not know all operators(.|\n)*my\.own\.Threshold"):
        pruned(model)


def optimised(model, level, tmp_path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(tmp_path / "optimised.onnx")


def test_a_model_optimised_for_one_machine_is_refused_with_its_reason():
    model = net(node("Relu", ["a"], ["b"]), imports=("com.microsoft.nchwc",), x=(1, 3, 8, 8))
    model.graph.node[0].domain = "com.microsoft.nchwc"
    with pytest.raises(ReadError, match="one machine"):
        pruned(model)


def test_a_model_optimised_for_all_machines_is_pruned(tmp_path):
    """LayerNormalization in opset 14 passes ONNX Runtime and no checker: the original does not either."""
    nodes = [
        node("MatMul", ["x", "w0"], ["a"]),
        node("LayerNormalization", ["a", "s", "s"], ["l"], axis=-1),
        node("MatMul", ["l", "w1"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("MatMul", ["c", "w2"], ["y"]),
    ]
    weights = {"w0": random(8, 12), "s": np.ones(12, np.float32), "w1": random(12, 32), "w2": random(32, 8)}
    model = model_of(nodes, [value("x", 1, ["n", 5, 8])], [value("y", 1, ["n", 5, 8])], weights, 14)
    extended = optimised(model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, tmp_path)
    for proto in (model, extended):
        result = pruned(proto)
        result.save(tmp_path / "cut.onnx")
        assert result.report.macs[1] < result.report.macs[0]


# --- unclean, and run by ONNX Runtime all the same --------------------------------------------------------------------


def _long_domain(model):
    for each in model.graph.node:
        each.domain = "ai.onnx"


def _named_alike(model):
    for each in model.graph.node:
        each.name = "same"


def _out_of_order(model):
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _listed(model, dims, kind=TensorProto.FLOAT):
    model.graph.input.extend(
        value(t.name, kind if t.name == "w1" else t.data_type, dims if t.name == "w1" else list(t.dims))
        for t in model.graph.initializer
    )


def _declares(model, name, *declared):
    model.graph.value_info.append(value(name, *declared))


def _output(model, *declared):
    model.graph.output[0].CopyFrom(value("y", *declared))


def _constant_output(model, array):
    model.graph.initializer.append(numpy_helper.from_array(array, "note"))
    model.graph.output.append(value("note", 1, [3]))


UNCLEAN = {
    "duplicate node names": _named_alike,
    "operators of the own domain by its long name": _long_domain,
    "nodes out of order": _out_of_order,
    "no graph name": lambda m: m.graph.ClearField("name"),
    "weights listed as inputs": lambda m: _listed(m, [12, 8, 3, 3]),
    "listed with another size": lambda m: _listed(m, [7, 8, 3, 3]),
    "listed with another rank": lambda m: _listed(m, [7]),
    "listed with another type": lambda m: _listed(m, [12, 8, 3, 3], TensorProto.FLOAT16),
    "listed without shape": lambda m: _listed(m, None),
    "output without shape": lambda m: _output(m, 1, None),
    "output without type": lambda m: m.graph.output[0].ClearField("type"),
    "output of rank 0": lambda m: _output(m, 1, []),
    "output of a stale size": lambda m: _output(m, 1, ["n", 99]),
    "wrong value_info": lambda m: _declares(m, "a", 1, [1, 99, 8, 8]),
    "value_info of another rank": lambda m: _declares(m, "a", 1, [1, 99]),
    "an output that is a constant, and declared as another": lambda m: _constant_output(m, random(3, 3)),
    "negative value_info": lambda m: _declares(m, "a", 1, [-1, 8, 8, 8]),
    "value_info without shape": lambda m: _declares(m, "c", 1, None),
    "value_info of nothing": lambda m: _declares(m, "nobody", 1, [3]),
    "input passed on": lambda m: m.graph.output.append(m.graph.input[0]),
    "negative input": lambda m: m.graph.input[0].CopyFrom(value("x", 1, [-1, 3, 8, 8])),
}


@pytest.mark.parametrize("kind", UNCLEAN)
def test_what_onnx_runtime_puts_up_with_is_pruned(kind, tmp_path):
    model = net()
    UNCLEAN[kind](model)
    same_interface_and_smaller(model, tmp_path)
    assert [v.name for v in onnx.load(tmp_path / "cut.onnx").graph.output] == [v.name for v in model.graph.output]


def test_outputs_that_are_left_out_are_no_stumbling_block(tmp_path):
    top = [
        node("TopK", ["a", "k"], ["", "i"], axis=1),
        node("Cast", ["i"], ["j"], to=1),
        node("ReduceSum", ["j"], ["s"]),
        node("Add", ["a", "s"], ["b"]),
    ]
    same_interface_and_smaller(net(*top, weights={"k": np.array([3])}), tmp_path)
    split = [node("Split", ["a", "k"], ["", "s"], axis=1), node("Concat", ["s", "s"], ["b"], axis=1)]
    same_interface_and_smaller(net(*split, weights={"k": np.array([4, 4])}), tmp_path)


def test_the_same_name_inside_two_bodies_and_behind_them_is_three_tensors(tmp_path):
    def body(factor):
        return helper.make_graph([node("Mul", ["r", factor], ["c"])], "body", [], [value("c", 1, None)])

    middle = [
        node("Relu", ["a"], ["r"]),
        node("If", ["yes"], ["b"], then_branch=body("two"), else_branch=body("three")),
    ]
    weights = {"yes": np.array(True), "two": np.float32(2), "three": np.float32(3)}
    same_interface_and_smaller(net(*middle, weights=weights), tmp_path)


def test_a_sparse_weight_is_cut_as_a_dense_one(tmp_path):
    dense, model = net(), net()
    values = numpy_helper.to_array(model.graph.initializer[1]).ravel()
    kept = np.sort(np.random.default_rng(0).choice(values.size, values.size // 3, replace=False))
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(values[kept], "w1"), numpy_helper.from_array(kept, "at"), [12, 8, 3, 3]
    )
    model.graph.sparse_initializer.append(sparse)
    del model.graph.initializer[1]
    thinned = np.zeros_like(values)
    thinned[kept] = values[kept]
    dense.graph.initializer[1].CopyFrom(numpy_helper.from_array(thinned.reshape(12, 8, 3, 3), "w1"))
    assert np.array_equal(same_interface_and_smaller(model, tmp_path), same_interface_and_smaller(dense, tmp_path))
    sparse.dims[:] = [1 << 21, 1 << 20]
    model.graph.sparse_initializer[0].CopyFrom(sparse)
    with pytest.raises(ReadError, match="would take"):
        load(model)


# --- broken -----------------------------------------------------------------------------------------------------------


def _without_pads(model):
    model.graph.node[2].op_type = "Cast"


def _values(model, change):
    array = numpy_helper.to_array(model.graph.initializer[1]).copy()
    change(array)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(array, "w1"))


def _replaced(model, index, array):
    name = model.graph.initializer[index].name
    model.graph.initializer[index].CopyFrom(numpy_helper.from_array(array, name))


def _with_bias(model, array):
    model.graph.initializer.append(numpy_helper.from_array(array, "bias"))
    model.graph.node[0].input.append("bias")


def _infinite_bias(model):
    array = random(8)
    array[3] = np.inf
    _with_bias(model, array)


def _short(model, count):
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * count)


BROKEN = {
    "a required attribute is missing": _without_pads,
    "an input is missing": lambda m: m.graph.node[2].input.pop(),
    "too many inputs": lambda m: m.graph.node[2].input.extend("bbb"),
    "a node without outputs": lambda m: m.graph.node.append(node("Relu", ["a"], [])),
    "an attribute of another type": lambda m: m.graph.node[2].attribute[0].CopyFrom(helper.make_attribute("pads", "x")),
    "a circle": lambda m: m.graph.node[1].input.__setitem__(0, "c"),
    "an input declared twice": lambda m: m.graph.input.append(m.graph.input[0]),
    "a tensor of negative size": lambda m: m.graph.initializer[1].dims.__setitem__(0, -12),
    "too few values": lambda m: _short(m, 2),
    "too many values": lambda m: _short(m, 10000),
    "no values": lambda m: _short(m, 0),
    "NaN": lambda m: _values(m, lambda w: w.__setitem__((0, 0, 0, 0), np.nan)),
    "infinity": lambda m: _values(m, lambda w: w.__setitem__((0, 0, 0, 0), np.inf)),
    "a weight that does not fit its data": lambda m: _replaced(m, 1, random(12, 7, 3, 3)),
    "a weight of one channel less": lambda m: _replaced(m, 2, random(11, 5)),
    "a bias that does not fit": lambda m: _with_bias(m, random(7)),
    "an opset beyond all numbers": lambda m: setattr(m.opset_import[0], "version", 2**40),
    "a negative opset": lambda m: setattr(m.opset_import[0], "version", -3),
    "an input that nothing could hold": lambda m: m.graph.input[0].CopyFrom(value("x", 1, [1, 3, 10**6, 10**6])),
    "a weight beside the products that is infinite": _infinite_bias,
    "a future opset": lambda m: setattr(m.opset_import[0], "version", 99),
    "a future format": lambda m: setattr(m, "ir_version", 99),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_is_refused_as_unreadable(kind):
    model = net()
    BROKEN[kind](model)
    with pytest.raises(ReadError) as error:
        pruned(model)
    assert error.value.where
    assert error.value.fix


@pytest.mark.parametrize("name", [b"first", b"w1", b"Relu"])
def test_names_that_are_no_text_are_refused(name):
    with pytest.raises(ReadError, match="not text"):
        pruned(net().SerializeToString().replace(name, b"\xff" + name[1:]))


def test_sizes_that_are_declared_wrongly_are_not_believed_of_what_reads_them(tmp_path):
    """A map that is declared too wide, doubled and joined: ONNX Runtime runs it, and does not open what believes it."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["r"]),
        node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", ["p", "w1"], ["u"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", ["u", "r"], ["c"], axis=1),
        node("Conv", ["c", "w2"], ["y"]),
    ]
    weights = {"w0": random(16, 3, 3, 3), "w1": random(3, 8, 2, 2), "w2": random(5, 24, 1, 1)}
    model = model_of(nodes, [value("x", 1, [1, 3, 8, 8])], [value("y", 1, [1, 5, 8, 8])], weights)
    model.graph.value_info.append(value("p", 1, [1, 3, 4, 7777]))
    result = pruned(model)
    result.save(tmp_path / "cut.onnx")
    assert all(7777 not in [d.dim_value for d in v.type.tensor_type.shape.dim] for v in result.model.graph.value_info)


# --- bombs ------------------------------------------------------------------------------------------------------------


def _doubled(times):
    names = ["s", *(f"d{i}" for i in range(times - 1)), "z"]
    return [node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]


BOMBS = {
    "ConstantOfShape": [node("ConstantOfShape", ["large"], ["z"])],
    "Range": [node("Range", ["zero", "far", "one"], ["i"]), node("Cast", ["i"], ["z"], to=1)],
    "Concat": _doubled(40),
    "Tile": [node("Tile", ["s", "far1"], ["z"])],
    "Expand": [node("Expand", ["s", "far1"], ["z"])],
    "Pad": [node("Pad", ["a", "pads"], ["z"])],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_tensor_that_nothing_could_hold_is_refused_before_anything_runs(kind):
    weights = {
        "large": np.array([100, 1 << 10, 1 << 10, 1 << 8]),
        "zero": np.int64(0),
        "one": np.int64(1),
        "far": np.int64(1 << 40),
        "far1": np.array([1 << 36]),
        "s": np.ones(1, np.float32),
        "pads": np.array([0, 10**9, 0, 0, 0, 0, 0, 0]),
    }
    model = net(
        *BOMBS[kind], node("ReduceSum", ["z"], ["t"], keepdims=0), node("Add", ["a", "t"], ["b"]), weights=weights
    )
    with pytest.raises(ReadError, match="asks for a tensor of"):
        inspect(model)


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Tile", "Expand"])
def test_nor_in_a_branch(kind):
    weights = {"large": np.array([100, 1 << 10, 1 << 10, 1 << 8]), "far1": np.array([1 << 36]), "s": np.ones(1, "f")}
    then = helper.make_graph(
        [*BOMBS[kind], node("ReduceSum", ["z"], ["t"], keepdims=0)], "then", [], [value("t", 1, [])]
    )
    other = helper.make_graph([node("ReduceSum", ["a"], ["e"], keepdims=0)], "else", [], [value("e", 1, [])])
    chosen = node("If", ["is"], ["m"], then_branch=then, else_branch=other)
    negative = [node("ReduceSum", ["a"], ["total"], keepdims=0), node("Cast", ["total"], ["is"], to=9)]
    model = net(*negative, chosen, node("Add", ["a", "m"], ["b"]), weights=weights)
    with pytest.raises(ReadError, match=r"asks for a tensor of|takes more|ONNX Runtime does not run") as caught:
        prune(model, calibration="none", measure=False)
    assert "install" not in str(caught.value)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 4, 10])
def test_an_export_of_a_fixed_batch_is_pruned_with_data(count, tmp_path):
    model = net(x=(4, 3, 8, 8), y=(4, 5))
    result = prune(model, calibration={"x": random(count, 3, 8, 8)}, measure=False)
    result.save(tmp_path / "cut.onnx")
    assert result.plan.reconstruct == "sequential"
    assert result.report.macs[1] < result.report.macs[0]
    found, groups = sensitivity(model, calibration={"x": random(count, 3, 8, 8)})
    assert set(groups.values) == {group.name for group in found.groups.free}


def frames(nodes, weights):
    return model_of(nodes, [value("x", 1, ["t", 8])], [value("y", 1, ["k", 6])], weights)


FRAMES = {
    "windows of five frames": frames(
        [
            node("Reshape", ["x", "windows"], ["r"]),
            node("MatMul", ["r", "w0"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("MatMul", ["b", "w1"], ["y"]),
        ],
        {"windows": np.array([-1, 40]), "w0": random(40, 32), "w1": random(32, 6)},
    ),
    "a time-delay network": frames(
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("Unsqueeze", ["t", "first"], ["u"]),
            node("Conv", ["u", "w0"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "w1"], ["c"], dilations=[3]),
            node("Squeeze", ["c", "first"], ["s"]),
            node("Transpose", ["s"], ["y"], perm=[1, 0]),
        ],
        {"first": np.array([0]), "w0": random(24, 8, 5), "w1": random(6, 24, 3)},
    ),
    "clips of eight frames, each of which may be any number": model_of(
        [
            node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
            node("Relu", ["a"], ["b"]),
            node("ReduceMean", ["b"], ["m"], axes=[2, 3], keepdims=0),
            node("Reshape", ["m", "clips"], ["r"]),
            node("ReduceMean", ["r"], ["p"], axes=[1], keepdims=0),
            node("MatMul", ["p", "w1"], ["y"]),
        ],
        [value("x", 1, ["t", 3, 8, 8])],
        [value("y", 1, None)],
        {"clips": np.array([-1, 8, 16]), "w0": random(16, 3, 3, 3), "w1": random(16, 6)},
    ),
    "a batch that is written in": model_of(
        [
            node("Conv", ["x", "w0"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("GlobalAveragePool", ["b"], ["p"]),
            node("Reshape", ["p", "clips"], ["q"]),
            node("MatMul", ["q", "w1"], ["y"]),
        ],
        [value("x", 1, ["t", 3, 8, 8])],
        [value("y", 1, None)],
        {"clips": np.array([3, 4, 16]), "w0": random(16, 3, 3, 3), "w1": random(16, 6)},
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_first_axis_that_is_no_batch_gets_a_size_on_which_the_model_runs(kind, tmp_path):
    result = pruned(FRAMES[kind])
    result.save(tmp_path / "cut.onnx")
    assert result.report.macs[1] < result.report.macs[0]


@pytest.mark.parametrize("kind", FRAMES)
def test_nor_do_data_come_in_ones_then(kind, tmp_path):
    model = FRAMES[kind]
    shape = [d.dim_value or 100 for d in model.graph.input[0].type.tensor_type.shape.dim]
    result = prune(model, calibration={"x": random(*shape)}, measure=False)
    result.save(tmp_path / "cut.onnx")
    assert result.report.macs[1] < result.report.macs[0]


def test_the_size_of_a_first_axis_can_be_said():
    analysis = inspect(FRAMES["a time-delay network"], sizes={"t": 24})
    assert analysis.feeds["x"].shape == (24, 8)


def test_one_example_input_is_enough_where_none_can_be_guessed(tmp_path):
    """States beside the data: the first axis of each is something else, and one size of them fits."""
    nodes = [
        node("MatMul", ["x", "w0"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Unsqueeze", ["b", "first"], ["u"]),
        node("LSTM", ["u", "W", "R", "", "", "h", "h"], ["", "hn"], hidden_size=7),
        node("Squeeze", ["hn", "first"], ["s"]),
        node("MatMul", ["s", "w1"], ["t"]),
        node("Mul", ["t", "rate"], ["y"]),
    ]
    inputs = [value("x", 1, ["n", 6]), value("h", 1, ["layers", "m", "k"]), value("rate", 1, [])]
    weights = {"first": np.array([0]), "w0": random(6, 20), "W": random(1, 28, 20), "R": random(1, 28, 7)}
    model = model_of(nodes, inputs, [value("y", 1, None)], {**weights, "w1": random(7, 5)})
    example = {"x": random(3, 6), "h": random(1, 3, 7), "rate": np.float32(2) * np.ones((), np.float32)}
    result = prune(model, calibration=example, measure=False)
    result.save(tmp_path / "cut.onnx")
    assert result.report.macs[1] < result.report.macs[0]


def test_the_computed_one_of_an_expand_is_not_scaled(tmp_path):
    """What torch writes for x.expand(-1, -1, h, h) with a free h: -1 becomes 1 by Where, and 1 is no channel count."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["b"]),
        node("ReduceMean", ["b"], ["m"], axes=[2, 3], keepdims=1),
        node("Shape", ["x"], ["sizes"]),
        node("Gather", ["sizes", "two"], ["h"], axis=0),
        node("Unsqueeze", ["h", "first"], ["h1"]),
        node("Concat", ["minus", "minus", "h1", "h1"], ["target"], axis=0),
        node("Shape", ["target"], ["rank"]),
        node("ConstantOfShape", ["rank"], ["ones"], value=helper.make_tensor("v", TensorProto.INT64, [1], [1])),
        node("Mul", ["ones", "minus"], ["minuses"]),
        node("Equal", ["target", "minuses"], ["free"]),
        node("Where", ["free", "ones", "target"], ["shape"]),
        node("Expand", ["m", "shape"], ["e"]),
        node("Add", ["e", "b"], ["s"]),
        node("Conv", ["s", "w1"], ["y"], pads=[1] * 4),
    ]
    weights = {"w0": random(8, 3, 3, 3), "w1": random(6, 8, 3, 3), "two": np.int64(2)}
    weights |= {"first": np.array([0]), "minus": np.array([-1])}
    model = model_of(nodes, [value("x", 1, ["n", 3, "h", "h"])], [value("y", 1, ["n", 6, "h", "h"])], weights)
    same_interface_and_smaller(model, tmp_path)


def test_a_size_that_the_export_fixed_is_found(tmp_path):
    """An axis that is declared free, and whose size a Reshape has written in all the same (torch's attention)."""
    nodes = [
        node("MatMul", ["x", "w0"], ["a"]),
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"]),
        node("Concat", ["n", "steps", "heads"], ["to"], axis=0),
        node("Reshape", ["a", "to"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w1"], ["y"]),
    ]
    weights = {"w0": random(6, 12), "first": np.array([0]), "steps": np.array([7]), "heads": np.array([2, 6])}
    model = model_of(nodes, [value("x", 1, ["n", "t", 6])], [value("y", 1, None)], {**weights, "w1": random(6, 5)})
    result = pruned(model)
    assert result.report.macs[1] < result.report.macs[0]


def test_where_no_size_fits_the_message_says_how_to_give_one():
    nodes = [
        node("Reshape", ["x", "to"], ["r"]),
        node("Reshape", ["r", "back"], ["a"]),
        node("MatMul", ["a", "w0"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("MatMul", ["c", "w1"], ["y"]),
    ]
    weights = {"to": np.array([-1, 1019 * 1021]), "back": np.array([-1, 3]), "w0": random(3, 12), "w1": random(12, 5)}
    model = model_of(nodes, [value("x", 1, ["n", "t", 3])], [value("y", 1, None)], weights)
    with pytest.raises(ReadError, match="--size-of n=N --size-of t=N"):
        pruned(model)


@pytest.mark.parametrize("batch", [1, "n"])
def test_a_squeeze_of_all_axes_does_not_lose_the_channels(batch, tmp_path):
    """Where a cut leaves one channel, its axis must not go as well."""
    nodes = [
        node("Conv", ["x", "w0"], ["a"]),
        node("GlobalMaxPool", ["a"], ["p"]),
        node("Squeeze", ["p"], ["q"]),
        node("MatMul", ["q", "w1"], ["y"]),
    ]
    model = model_of(
        nodes,
        [value("x", 1, [batch, 3, 8, 8])],
        [value("y", 1, None)],
        {"w0": random(6, 3, 3, 3), "w1": random(6, 5)},
    )
    result = pruned(model, budget=Budget(macs=0.2 if batch == 1 else 0.55))
    result.save(tmp_path / "cut.onnx")
    assert result.report.macs[1] < result.report.macs[0]


def test_an_output_declared_of_a_size_that_it_cannot_have_is_corrected(tmp_path):
    """The target is computed from a size, so that the checker knows nothing of it before the cut."""
    nodes = [
        node("MatMul", ["x", "w0"], ["a"]),
        node("Shape", ["a"], ["s"]),
        node("Gather", ["s", "first"], ["n"]),
        node("Concat", ["n", "parts"], ["to"], axis=0),
        node("Reshape", ["a", "to"], ["v"]),
        node("Transpose", ["v"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["x", "w1"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("MatMul", ["c", "w2"], ["y"]),
    ]
    weights = {"w0": random(8, 12), "first": np.array([0]), "parts": np.array([3, 4])}
    weights |= {"w1": random(8, 32), "w2": random(32, 5)}
    outputs = [value("v", 1, ["n", 5, 35]), value("t", 1, ["n", 4, 3]), value("y", 1, ["n", 5])]
    result = pruned(model_of(nodes, [value("x", 1, ["n", 8])], outputs, weights, 17))
    result.save(tmp_path / "cut.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "cut.onnx"), full_check=True)


def test_a_grouped_convolution_whose_weight_does_not_fit_is_refused():
    model = net(node("Conv", ["a", "wg"], ["b"], group=8), weights={"wg": random(8, 8, 3, 3)})
    with pytest.raises(ReadError, match="Input channels C is not equal to kernel channels"):
        pruned(model)


@pytest.mark.parametrize(("op", "says"), [("LayerNormalization", True), ("Relu", False)])
def test_where_only_a_normalisation_is_in_the_way_the_message_says_what_frees_it(op, says):
    middle = [node(op, ["a", "s", "s"], ["b"])] if op == "LayerNormalization" else [node(op, ["x0"], ["b"])]
    nodes = [node("MatMul", ["x", "w0"], ["a"]), node("Identity", ["x"], ["x0"]), *middle]
    nodes.append(node("MatMul", ["b", "w1" if says else "w0"], ["y"]))
    weights = {"w0": random(8, 8), "s": np.ones(8, np.float32), "w1": random(8, 8)}
    model = model_of(nodes, [value("x", 1, ["n", 8])], [value("y", 1, ["n", 8])], weights, 17)
    with pytest.raises(BudgetError, match="nothing in this graph") as error:
        pruned(model)
    assert ("--inexact" in error.value.fix) == says
