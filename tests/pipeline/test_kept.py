"""What is saved is what was proved, and what was read is what the file says."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.graph import export, files, folding, spill
from onnx_prune.passes.graph import model as model_module
from onnx_prune.pipeline import refit as refit_module
from onnx_prune.pipeline import write as write_module
from onnx_prune.pipeline.prune import prune
from onnx_prune.runtime import folding as runtime_folding
from onnx_prune.runtime.proof import saved


def network(*, blind=False):
    """Two convolutions with a normalisation between, pooled and classified; blind: the output is an index."""
    end = "l = MatMul (k, w2)\n y = ArgMax <axis = 1> (l)" if blind else "y = MatMul (k, w2)"
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 3, 8, 8] x) => ({"int64" if blind else "float"}[n, {1 if blind else 5}] y)
    {{
      a = Conv <pads = [1, 1, 1, 1]> (x, w0)
      b = BatchNormalization <epsilon = 0.5> (a, s, s, s, s)
      c = Relu (b)
      d = Conv <pads = [1, 1, 1, 1]> (c, w1)
      e = Relu (d)
      k = ReduceMean <axes = [2, 3], keepdims = 0> (e)
      {end}
    }}""")
    shapes = {"w0": (32, 3, 3, 3), "s": (32,), "w1": (24, 32, 3, 3), "w2": (24, 5)}
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = np.abs(rng.standard_normal(shape)) + 0.1 if name == "s" else rng.standard_normal(shape) * 0.3
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return model


def pruned(model, **settings):
    return prune(model, measure=False, **{"calibration": "none", **settings})


def changing(monkeypatch, module, name, change):
    """The function of that module gives what `change` makes of its result."""
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **named: change(right(*args, **named)))


# --- reading ----------------------------------------------------------------------------------------------------------


def _lost_epsilon(graph):
    next(n for n in graph.nodes if n.op == "BatchNormalization").attrs.pop("epsilon")
    return graph


def _moved_pads(graph):
    graph.nodes[0].attrs["pads"] = [0, 0, 2, 2]
    return graph


def _swapped_inputs(graph):
    node = next(n for n in graph.nodes if n.op == "BatchNormalization")
    node.inputs[3].name, node.inputs[3].values = "other", node.inputs[3].values * 1.5
    return graph


def _another_weight(graph):
    weight = next(t for t in graph.tensors().values() if t.name == "w1")
    weight.values = np.roll(weight.values, 1, 0)
    return graph


READING = (_lost_epsilon, _moved_pads, _swapped_inputs, _another_weight)


@pytest.mark.parametrize("blind", [False, True], ids=["plain", "blind"])
@pytest.mark.parametrize("fault", READING)
def test_a_fault_of_reading_does_not_cancel_out(fault, blind, monkeypatch, tmp_path):
    onnx.save(network(blind=blind), tmp_path / "model.onnx")
    changing(monkeypatch, model_module.gs, "import_onnx", fault)
    with pytest.raises(ProofError, match="what was read is not what the model says"):
        pruned(tmp_path / "model.onnx")


def test_a_fault_of_folding_is_found():
    """The weight is computed: standardised filters."""
    model = network()
    nodes = parser.parse_graph("""
    g () => () { m = ReduceMean <axes = [1, 2, 3], keepdims = 1> (w1)  z = Sub (w1, m) }""").node
    rest = list(model.graph.node)
    rest[3].input[1] = "z"
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    pruned(model)
    with pytest.MonkeyPatch.context() as patch:
        right = folding.with_values
        patch.setattr(
            runtime_folding, "with_values", lambda m, values: right(m, {k: v * 1.01 for k, v in values.items()})
        )
        with pytest.raises(ProofError, match="what was read"):
            pruned(model)


def test_what_reading_puts_right_is_no_fault():
    model = network()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for node in model.graph.node:
        node.name = "same"
    pruned(model)


# --- writing ----------------------------------------------------------------------------------------------------------


def _edited(name, change):
    def edit(model):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = change(numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return model

    return edit


def _without_epsilon(model):
    del next(n for n in model.graph.node if n.op_type == "BatchNormalization").attribute[:]
    return model


AFTERWARDS = {
    "rolled": _edited("w1", lambda a: np.roll(a, 1, 0)),
    "zeroed": _edited("w1", np.zeros_like),
    "its sign flipped": _edited("w2", np.negative),
    "an epsilon lost": _without_epsilon,
    "one weight off": _edited("w1", lambda a: a + (np.arange(a.size).reshape(a.shape) == a.size // 2)),
}


@pytest.mark.parametrize("refit", [False, True], ids=["cut", "refitted"])
@pytest.mark.parametrize("fault", AFTERWARDS)
def test_a_model_that_changes_after_the_proof_is_not_saved(fault, refit, monkeypatch, tmp_path):
    """Also where the refit, which came after the proof, was measured before it changed."""
    changing(monkeypatch, write_module, "infer_shapes", AFTERWARDS[fault])
    result = pruned(network(), **({"calibration": _data()} if refit else {}))
    assert not refit or result.report.refit.startswith("kept")
    with pytest.raises(ProofError, match="saved file"):
        result.save(tmp_path / "cut.onnx")
    assert list(tmp_path.iterdir()) == []


def _older(model):
    model.opset_import[0].version -= 1


def _of_one(model):
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize("fault", [_older, _of_one])
def test_what_a_file_says_of_itself_is_compared_as_well(fault, monkeypatch, tmp_path):
    right = files._check

    def spoilt(file, *others):
        model = onnx.load(file)
        fault(model)
        onnx.save(model, file)
        right(file, *others)

    result = pruned(network())
    monkeypatch.setattr(files, "_check", spoilt)
    with pytest.raises(ProofError, match="not the model that was proved"):
        result.save(tmp_path / "cut.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shift", [-4, -4096, 4])
def test_wrong_places_of_external_weights_are_found(shift, monkeypatch, tmp_path):
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "model.onnx"
    onnx.save(network(), source, save_as_external_data=True, location="model.data", size_threshold=0)
    result = pruned(source)
    right = spill.set_entries
    monkeypatch.setattr(spill, "set_entries", lambda t, where, at, size: right(t, where, max(at + shift, 0), size))
    with pytest.raises(ProofError, match="saved file"):
        result.save(tmp_path / "cut.onnx")
    assert not (tmp_path / "cut.onnx").exists()
    monkeypatch.undo()
    result.save(tmp_path / "cut.onnx")


def test_a_saved_model_that_is_right_is_saved_also_where_its_output_is_an_index(tmp_path):
    pruned(network(blind=True)).save(tmp_path / "cut.onnx")
    onnx.checker.check_model(tmp_path / "cut.onnx", full_check=True)


# --- refits -----------------------------------------------------------------------------------------------------------


def _data():
    return {"x": np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32)}


REFITTED = {
    "rolled": lambda a: np.roll(a, 1, 0),
    "zeroed": np.zeros_like,
    "its sign flipped": np.negative,
}


@pytest.mark.parametrize("name", ["w0", "s"])
def test_a_refit_changes_refitted_weights_alone(name, monkeypatch):
    """The export of the refitted graph is corrupted in what no refit touches."""
    changing(monkeypatch, refit_module, "to_model", _edited(name, lambda a: a * 1.5))
    with pytest.raises(ProofError, match="refit"):
        pruned(network(), calibration=_data())


@pytest.mark.parametrize("fault", REFITTED)
def test_a_refit_that_is_exported_wrongly_is_refused(fault, monkeypatch):
    changing(monkeypatch, refit_module, "to_model", _edited("w1", REFITTED[fault]))
    with pytest.raises(ProofError, match="refit"):
        pruned(network(), calibration=_data())


def test_the_patched_functions_are_those_that_are_used():
    assert refit_module.to_model is export.to_model


@pytest.mark.parametrize(("kind", "accepted"), [(np.float16, True), (np.float32, False)])
def test_half_precision_may_round_otherwise_while_less_is_shown_and_single_may_not(kind, accepted, tmp_path):
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[4, 8] x) => (float[4, 20] y) { h = CastLike (x, w)  a = MatMul (h, w)  y = Cast <to = 1> (a) }""")
    rng = np.random.default_rng(0)
    model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal((8, 20)).astype(kind), "w"))
    onnx.save(model, tmp_path / "saved.onnx")
    expected = saved.shown(model, {"x": rng.standard_normal((4, 8)).astype(np.float32)})
    expected.outputs["y"] *= np.float32(1.001)
    with contextlib.nullcontext() if accepted else pytest.raises(ProofError, match="does not compute"):
        saved.check_saved(tmp_path / "saved.onnx", model, expected)
