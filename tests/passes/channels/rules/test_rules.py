"""The shared battery: every sample of every rule is cut, compared with its silenced twin, and compared wrongly."""

import numpy as np
import onnx
import pytest
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.channels.rules import rules
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model

SAMPLES = {f"{rule.op}: {name}": text for rule in rules().values() for name, text in rule.samples.items()}
# The reference evaluator lacks these forms, so they are compared in ONNX Runtime, in float32.
FLOAT32_ONLY = (
    "ConvTranspose: groups",
    "ConvTranspose: depthwise",
    "Pad: cropped channels",
    "MeanVarianceNormalization: over space",
    "Resize: scales",
    "Upsample: scales",
    "Attention: as many heads of keys",  # its scale is an attribute, which is float32
    "Attention: fewer heads of keys than of queries",
    "GroupNormalization: four groups",
    "QuantizeLinear: a scale a channel",
    "DequantizeLinear: weights with a scale a filter",
    "DequantizeLinear: weights with a scale a block",
    "DynamicQuantizeLinear: a convolution",
    "QLinearConv: plain, depthwise, plain",
    "MatMulInteger: after dynamic quantisation",
    "QLinearMatMul: two in a row",
    "MultiHeadAttention: one bias for all three",
    "MultiHeadAttention: a mask and a scale",
    "Attention: with its projections",
    "Attention: values of another size and a mask",
    "FusedConv: activation, groups and a sum",
    "FusedMatMul: transposed weight",
    "FusedMatMul: two activations",
    "FusedGemm: activation",
    "FastGelu: three forms of GELU",
    "SkipLayerNormalization: beside a branch",
)
FAMILIES = {
    "Conv: padding and strides": "convolution",
    "Gemm: transposed weight": "contraction",
    "BatchNormalization: of an activation": "normalisation",
    "Add: two activations": "elementwise",
    "MaxPool: windows": "pooling",
    "ReduceMean: over space": "reduction",
    "Concat: one operand twice": "joining",
    "Split: sizes as an input": "joining",
    "Slice: start to end": "indexing",
    "Gather: indices that repeat": "indexing",
    "Pad: channels on both sides": "indexing",
    "Reshape: to rows and back": "reshaping",
    "Transpose: channels last and back": "reshaping",
    "ConstantOfShape: channels of one value": "shape arithmetic",
    "LSTM: all inputs": "recurrent",
    "DequantizeLinear: weights with a scale a filter": "quantisation",
    "QLinearConv: plain, depthwise, plain": "quantisation",
    "GRU: reset after the product": "recurrent",
    "Attention: four axes and a mask": "attention",
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


def test_the_lists_of_this_file_name_samples_that_there_are():
    assert set(FLOAT32_ONLY) | set(FAMILIES) <= set(SAMPLES)


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
