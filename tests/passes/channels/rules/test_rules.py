"""The shared battery: every sample of every rule is cut, compared with its silenced twin, and compared wrongly."""

import numpy as np
import onnx
import pytest
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.channels.rules import rules
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model

SAMPLES = {f"{rule.op}-{i}": text for rule in rules().values() for i, text in enumerate(rule.samples)}
# The reference evaluator lacks these forms, so they are compared in ONNX Runtime, in float32.
FLOAT32_ONLY = (
    "ConvTranspose-1",
    "ConvTranspose-2",
    "Pad-3",
    "MeanVarianceNormalization-0",
    "Resize-0",
    "Upsample-0",
    "Attention-0",  # its scale is an attribute, which is float32
    "Attention-1",
    "GroupNormalization-0",
    "QuantizeLinear-0",
    "DequantizeLinear-0",
    "DequantizeLinear-1",
    "DynamicQuantizeLinear-0",
    "QLinearConv-0",
    "MatMulInteger-0",
    "QLinearMatMul-0",
    "MultiHeadAttention-0",
    "MultiHeadAttention-1",
    "FusedConv-0",
    "FusedMatMul-0",
    "FusedMatMul-1",
    "FusedGemm-0",
    "FastGelu-0",
    "SkipLayerNormalization-0",
)
FAMILIES = {
    "Conv-0": "convolution",
    "Gemm-0": "contraction",
    "BatchNormalization-0": "normalisation",
    "Add-0": "elementwise",
    "MaxPool-0": "pooling",
    "ReduceMean-0": "reduction",
    "Concat-0": "indexing",
    "Split-0": "indexing",
    "Slice-0": "indexing",
    "Gather-0": "indexing",
    "Pad-0": "indexing",
    "Reshape-2": "reshaping",
    "Transpose-0": "reshaping",
    "ConstantOfShape-0": "shape arithmetic",
    "LSTM-0": "recurrent",
    "DequantizeLinear-0": "quantisation",
    "QLinearConv-0": "quantisation",
    "GRU-0": "recurrent",
    "Attention-2": "attention",
}


def random_removal(groups, seed):
    rng = np.random.default_rng(seed)
    removed = {}
    for group in groups.free:
        count = int(rng.integers(0, group.units))
        removed[group.name] = rng.permutation(group.units)[:count]
    if groups.free and all(len(units) == 0 for units in removed.values()):
        largest = max(groups.free, key=lambda g: g.units)
        removed[largest.name] = [0]
    return groups.removed_labels(removed)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_has_channels_that_can_go(name, graphs):
    assert any(g.units > 1 for g in graphs.groups_of(graphs.parse(SAMPLES[name])).free)


@pytest.mark.parametrize("name", SAMPLES)
def test_cutting_equals_silencing(name, graphs):
    double = name not in FLOAT32_ONLY
    model = graphs.parse(SAMPLES[name], double=double)
    groups = graphs.groups_of(model)
    feeds = graphs.random_feeds(model)
    for seed in range(3):
        removed = random_removal(groups, seed)
        cut = to_model(apply_removal(groups.labelled, removed))
        onnx.checker.check_model(cut, full_check=True)
        twin = to_model(silence(groups.labelled, removed))
        run = graphs.reference if double else graphs.ort
        error = graphs.difference(run(cut, feeds), run(twin, feeds))
        assert error < (1e-12 if double else 2e-6)


@pytest.mark.parametrize("name", SAMPLES)
def test_removing_nothing_changes_nothing(name, graphs):
    model = graphs.parse(SAMPLES[name])
    groups = graphs.groups_of(model)
    none = groups.removed_labels({})
    for graph in (apply_removal(groups.labelled, none), silence(groups.labelled, none)):
        assert to_model(graph).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cut_model_is_smaller_and_keeps_its_interface(name, graphs):
    model = graphs.parse(SAMPLES[name])
    groups = graphs.groups_of(model)
    cut = to_model(apply_removal(groups.labelled, random_removal(groups, 0)))
    elements = [sum(int(np.prod(t.dims)) for t in m.graph.initializer) for m in (cut, model)]
    assert elements[0] < elements[1]
    assert list(cut.graph.input) == list(model.graph.input)
    assert list(cut.graph.output) == list(model.graph.output)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_proof_turns_red_for_a_wrong_index(name, graphs, monkeypatch):
    model = graphs.parse(SAMPLES[name])
    groups = graphs.groups_of(model)
    feeds = graphs.random_feeds(model)
    group = max(groups.free, key=lambda g: g.units)
    removed = groups.removed_labels({group.name: range(group.units // 2)})
    twin = graphs.reference(to_model(silence(groups.labelled, removed)), feeds)
    axes = [key for key, slices in group.slices.items() if len(slices) > 1]
    right = Cut.compress
    for wrong, _, axis in axes:

        def shifted(cut, constant, values, wrong=wrong, axis=axis):
            if constant.name == wrong:
                values = np.roll(values, 1, axis)
            return right(cut, constant, values)

        monkeypatch.setattr(Cut, "compress", shifted)
        cut = graphs.reference(to_model(apply_removal(groups.labelled, removed)), feeds)
        assert graphs.difference(cut, twin) > 1e-3
