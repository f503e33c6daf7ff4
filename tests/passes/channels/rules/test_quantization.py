"""Quantised models, as onnxruntime.quantization writes them, and models in other float types."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune import Budget, prune
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.files import save_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.arithmetic.unsigned import with_unsigned_weights
from onnx_prune.runtime.proof import prove as proof_module
from onnx_prune.runtime.shapes import tensor_shapes

NETWORK = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 8, 8] x) => (float[1, 5] y)
    <float[8, 3, 3, 3] w1, float[8] b1, float[8, 8, 3, 3] w2, float[8] b2, float[8, 1, 3, 3] wd, float[8] bd,
      float[16, 5] w4, float[5] b4> {
      a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
      r = Relu (a)
      c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
      s = Add (c, r)
      d = Conv <group = 8, pads = [1, 1, 1, 1]> (s, wd, bd)
      q = Sigmoid (d)
      k = Concat <axis = 1> (q, s)
      p = GlobalAveragePool (k)
      f = Flatten (p)
      y = Gemm (f, w4, b4)
    }
    """


def calibration():
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(0)
            self.batches = iter([{"x": rng.standard_normal((1, 3, 8, 8), np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self.batches, None)

    return Reader()


def quantise(model, folder, **options):
    """The model through quantize_static; 7 bits, because ONNX Runtime's sums of 8 bits saturate without VNNI."""
    from onnxruntime.quantization import quantize_static

    before, after = folder / "float.onnx", folder / "quantised.onnx"
    onnx.save(model, before)
    quantize_static(before, after, calibration(), reduce_range=True, **options)
    return onnx.load(after)


def groups_of_run(model, feeds):
    """Groups with the shapes that a run has shown: com.microsoft's operators have no inference in onnx."""
    graph = load(model)
    facts = tensor_facts(graph, shown=tensor_shapes(model, feeds))
    return channel_groups(label_channels(graph, facts))


def half_of(groups):
    return groups.removed_labels({g.name: range(0, g.units, 2) for g in groups.free if g.units > 1})


def prove(model, graphs, groups=None):
    """Cut half of every free group; the cut model, and how far it is from its silenced twin."""
    feeds = graphs.random_feeds(model)
    groups = groups or groups_of_run(model, feeds)
    removed = half_of(groups)
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    return cut, graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds))


INTEGER_PRODUCTS = """
    <ir_version: 10, opset_import: ["": 21]>
    g (uint8[2, 3, 4, 4] x, uint8[5, 4] r) => (uint8[2, 6, 4, 4] a, int32[2, 6, 4, 4] b, uint8[5, 2] c, int32[5, 2] d)
    <float t = {0.05}, uint8 z = {3}, int8 v = {-7}, float[6] t6 = {0.01, 0.02, 0.03, 0.02, 0.01, 0.03}, int8[6] z6,
     int8[6, 3, 1, 1] w, int8[4, 2] m, float u = {0.9}> {
      a = QLinearConv (x, t, z, w, t6, z6, t, z)
      b = ConvInteger (x, w, z)
      c = QLinearMatMul (r, t, z, m, t, v, u, z)
      d = MatMulInteger (r, m, z, v)
    }
    """


def test_unsigned_weights_are_the_same_numbers(graphs):
    model = graphs.parse(INTEGER_PRODUCTS)
    for tensor in model.graph.initializer:
        if tensor.name == "z6":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(6, np.int8), "z6"))
    rng = np.random.default_rng(0)
    feeds = {"x": rng.integers(0, 256, (2, 3, 4, 4), np.uint8), "r": rng.integers(0, 256, (5, 4), np.uint8)}
    changed = with_unsigned_weights(model)
    types = {t.name: t.data_type for t in changed.graph.initializer}
    for node in changed.graph.node:
        weight = 3 if node.op_type.startswith("QLinear") else 1
        assert types[node.input[weight]] == TensorProto.UINT8
    for ours, expected in zip(graphs.ort(changed, feeds), graphs.reference(model, feeds), strict=True):
        assert (ours == expected).all()
    assert with_unsigned_weights(changed) is changed


def test_a_proof_that_saturated_sums_spoil_is_made_with_unsigned_weights(graphs, monkeypatch, tmp_path):
    from onnxruntime.quantization import QuantFormat, QuantType

    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    model = quantise(graphs.parse(NETWORK), tmp_path, quant_format=QuantFormat.QOperator, **options)
    measure, types = proof_module.max_relative_error, []

    def saturated(cut, twin, runs, *, device="auto"):
        """As a processor without VNNI would: wrong where weights are signed."""
        found = measure(cut, twin, runs, device=device)
        tensors = {t.name: t.data_type for t in cut.graph.initializer}
        weights = {tensors[n.input[3]] for n in cut.graph.node if n.op_type == "QLinearConv"}
        types.append(weights)
        return replace(found, error=0.1) if TensorProto.INT8 in weights else found

    monkeypatch.setattr(proof_module, "max_relative_error", saturated)
    result = prune(model, budget=Budget(macs=0.5), calibration="none", measure=False)
    assert result.report.proof < 1e-6
    assert types == [{TensorProto.INT8}, {TensorProto.UINT8}]


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_weights_and_biases_in_integers_are_parameters(form, graphs, tmp_path):
    from onnxruntime.quantization import QuantFormat

    def params(model, kept=None):
        cost = cost_model(groups_of_run(model, graphs.random_feeds(model)))
        return cost.params(cost.units if kept is None else cost.units // 2)

    plain = graphs.parse(NETWORK)
    model = quantise(plain, tmp_path, quant_format=QuantFormat[form])
    scales = sum(t.data_type == TensorProto.FLOAT for t in model.graph.initializer)  # one number each
    weights = sum(numpy_helper.to_array(t).size for t in plain.graph.initializer)
    assert params(plain) == weights
    assert params(model) == weights + scales
    assert params(model, "half") == params(plain, "half") + scales


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_quantised_network_loses_as_much_as_the_float_one_and_is_proven(form, kind, per_channel, graphs, tmp_path):
    from onnxruntime.quantization import QuantFormat, QuantType

    options = {"quant_format": QuantFormat[form], "weight_type": QuantType[kind], "activation_type": QuantType[kind]}
    model = quantise(graphs.parse(NETWORK), tmp_path, per_channel=per_channel, **options)
    groups = groups_of_run(model, graphs.random_feeds(model))
    assert [g.units for g in groups.free] == [g.units for g in graphs.groups_of(graphs.parse(NETWORK)).free]
    cut, error = prove(model, graphs, groups)
    assert error < 1e-6
    onnx.checker.check_model(cut)
    shapes = {t.name: list(t.dims) for t in cut.graph.initializer}
    assert shapes["w2_quantized"] == [4, 4, 3, 3]
    assert shapes["b2_quantized"] == [4]
    assert shapes["w2_scale"] == ([4] if per_channel else [])


def test_the_twin_is_wrong_where_zero_points_are_forgotten(graphs, tmp_path):
    from onnxruntime.quantization import QuantFormat, QuantType

    kind = {"weight_type": QuantType.QUInt8, "activation_type": QuantType.QUInt8}
    model = quantise(graphs.parse(NETWORK), tmp_path, quant_format=QuantFormat.QDQ, **kind)
    groups = groups_of_run(model, graphs.random_feeds(model))
    assert any(zeros.any() for zeros in groups.labelled.zeros.values())
    groups.labelled.zeros.clear()
    assert prove(model, graphs, groups)[1] > 1e-3


def test_a_dynamically_quantised_network_takes_its_ranges_over_what_is_left(graphs, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    onnx.save(graphs.parse(NETWORK), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "quantised.onnx", reduce_range=True)
    model = onnx.load(tmp_path / "quantised.onnx")
    assert {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"} <= {n.op_type for n in model.graph.node}
    cut, error = prove(model, graphs)
    assert error < 1e-5
    assert {tuple(t.dims) for t in cut.graph.initializer} >= {(4, 4, 3, 3), (8, 5)}


def test_a_pruned_float_network_goes_through_quantize_static_and_runs(graphs, tmp_path):
    from onnxruntime.quantization import QuantFormat

    groups = graphs.groups_of(graphs.parse(NETWORK))
    cut = to_model(apply_removal(groups.labelled, half_of(groups)))
    feeds = graphs.random_feeds(cut)
    exact = graphs.ort(cut, feeds)
    for form in QuantFormat:
        model = quantise(cut, tmp_path, quant_format=form, per_channel=True)
        assert graphs.difference(graphs.ort(model, feeds), exact) < 0.2


def test_weights_of_quantisation_aware_training_are_floats_behind_both_operators(graphs):
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[6, 3, 1, 1] w1, float[2, 6, 1, 1] w2, float s = {0.02}, uint8 z = {100}> {
          a = Conv (x, w1)
          q = QuantizeLinear (w2, s, z)
          d = DequantizeLinear (q, s, z)
          y = Conv (a, d)
        }
        """
    cut, error = prove(graphs.parse(text), graphs)
    assert error < 1e-6
    assert [list(t.dims) for t in cut.graph.initializer if t.dims] == [[3, 3, 1, 1], [2, 3, 1, 1]]


@pytest.mark.parametrize("bits", ["INT4", "UINT4"])
def test_blocks_of_four_bit_weights_stay_and_their_other_axis_goes(bits, graphs):
    text = """
        <ir_version: 10, opset_import: ["": 21]>
        g (float[2, 8] x) => (float[2, 5] y)
        <float[4, 6] s1, float[6, 5] w2> {
          d = DequantizeLinear <axis = 0, block_size = 2> (w1, s1)
          a = MatMul (x, d)
          y = MatMul (a, w2)
        }
        """
    model = graphs.parse(text)
    values = np.random.default_rng(0).integers(0, 7, 48).tolist()
    model.graph.initializer.append(helper.make_tensor("w1", getattr(TensorProto, bits), [8, 6], values))
    cut, error = prove(model, graphs, graphs.groups_of(model))
    assert error < 1e-6
    assert [8, 3] in [list(t.dims) for t in cut.graph.initializer]


def retyped(model, dtype):
    """The model with another float type throughout; opset 22 is the first with a bfloat16 Conv."""
    model.opset_import[0].version = 22
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(dtype))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = dtype
    return model


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning:onnx.reference")  # its sigmoid computes both branches
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_other_float_types_load_are_cut_saved_and_run(dtype, graphs, tmp_path):
    model = retyped(graphs.parse(NETWORK), dtype)
    onnx.save(model, tmp_path / "model.onnx")
    groups = channel_groups(label_channels(graph := load(tmp_path / "model.onnx"), tensor_facts(graph)))
    removed = half_of(groups)
    path = save_model(to_model(apply_removal(groups.labelled, removed)), tmp_path / "cut.onnx")
    cut, twin = onnx.load(path), to_model(silence(groups.labelled, removed))
    assert {t.data_type for t in cut.graph.initializer} == {dtype}
    assert {tuple(t.dims) for t in cut.graph.initializer} >= {(4, 4, 3, 3), (8, 5)}
    feeds = graphs.random_feeds(model)
    run = graphs.ort if dtype == TensorProto.FLOAT16 else graphs.reference
    tolerance = {TensorProto.FLOAT16: 5e-3, TensorProto.BFLOAT16: 5e-2, TensorProto.DOUBLE: 1e-12}[dtype]
    first, second = ([np.asarray(o, np.float64) for o in run(m, feeds)] for m in (cut, twin))
    assert graphs.difference(first, second) < tolerance
