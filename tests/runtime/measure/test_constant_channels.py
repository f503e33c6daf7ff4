"""Filters of zeros: the cut network is the masked one, to the edges of the map, whatever lies between two layers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.rewrite.place import with_placers
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.layers import own_convolutions
from onnx_prune.pipeline import refit
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.measure.constant_channels import constant_channels, zero_filters
from onnx_prune.runtime.session import open_session

QUICK = {"criterion": "l2", "align": 1, "calibration": "synthetic", "samples": 16, "measure": False}


GATED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {
  a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, W1, b1)
  r = Relu(a)
  m = GlobalAveragePool(x)
  s = Conv(m, Ws)
  t = Sigmoid(s)
  u = Mul(r, t)
  y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(u, W2)
}"""


DEPTHWISE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 3, 9, 8] x) => (float[n, 6, 5, 4] y) {
  a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, W1, b1)
  r = Relu(a)
  d = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 10>(r, D, b2)
  s = Relu(d)
  y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(s, W2)
}"""


def filled(text, shapes):
    """The model of the text with random weights, biases from 1 on."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights = {name: np.abs(values) + 1 if values.ndim == 1 else values for name, values in weights.items()}
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    return model


def masked(model, share=0.4, seed=0):
    """The model with the weakest filters of every convolution at zero, and biases that are far from it."""
    rng, zeroed = np.random.default_rng(seed), onnx.ModelProto()
    zeroed.CopyFrom(model)
    for tensor in zeroed.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if values.ndim == 4 and "downsample" not in tensor.name:
            rows = np.abs(values).reshape(len(values), -1).sum(1)
            values[rows.argsort()[: int(share * len(values))]] = 0
        elif values.ndim == 1 and values.dtype == np.float32 and "var" not in tensor.name:
            values += rng.uniform(0.05, 0.5, values.shape).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return zeroed


def free_sizes(model):
    """The model for images of any height and width."""
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True):
        dim.Clear()
        dim.dim_param = name
    del model.graph.value_info[:]
    return model


def zeros_alone(model):
    """The model without its filters of zeros and nothing else."""
    groups = analyse(with_placers(analyse(model).groups)).groups
    zero = groups.component[zero_filters(groups, np.ones(groups.labelled.count, bool))]
    gone = {g.name: int(np.isin(g.components, zero).sum()) for g in groups.free if g.name in own_convolutions(groups)}
    widths = {g.name: 1 - gone[g.name] / g.units for g in groups.free if gone.get(g.name)}
    return onnx_prune.prune(model, budget=Budget(channels=widths), preset="sfp", **QUICK)


def error(model, other, shape, seed=5):
    """The largest difference, as a share of the largest output."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    first, second = (open_session(m).run({m.graph.input[0].name: x})[m.graph.output[0].name] for m in (model, other))
    return np.abs(first - second).max() / np.abs(first).max()


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: onnx.load(models.digits_model()), (3, 1, 8, 8)),
        (lambda: models.resnet_cifar(20, folded=True), (2, 3, 32, 32)),
        (
            lambda: filled(
                DEPTHWISE, {"W1": (10, 3, 3, 3), "b1": (10,), "D": (10, 1, 3, 3), "b2": (10,), "W2": (6, 10, 3, 3)}
            ),
            (2, 3, 9, 8),
        ),
        (lambda: free_sizes(onnx.load(models.digits_model())), (2, 1, 9, 13)),
    ],
    ids=["normalised", "folded", "depthwise", "any size"],
)
def test_a_network_without_its_filters_of_zeros_is_the_network_itself(build, shape):
    model = masked(build())
    result = zeros_alone(model)
    assert result.report.macs[1] < 0.61 * result.report.macs[0]
    assert error(model, result.model, shape) < 1e-5
    cost = analyse(result.model).cost
    assert result.report.macs[1] == cost.macs(cost.units)
    floats = [t for t in result.model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert result.report.params[1] == sum(int(np.prod(t.dims)) for t in floats)


def test_means_in_the_place_of_the_maps_are_another_network_and_the_proof_says_so(monkeypatch):
    """Without the maps only what BatchNormalization makes of zero comes back: the oracle can fail."""
    monkeypatch.setattr(refit, "add_maps", lambda graph, maps: {})
    with pytest.raises(ProofError):
        zeros_alone(masked(onnx.load(models.digits_model())))


def test_the_result_is_refitted_when_it_is_pruned_again():
    first = zeros_alone(masked(onnx.load(models.digits_model())))
    again = onnx_prune.prune(
        first.model, budget=Budget(macs=0.7), calibration="synthetic", samples=32, measure=False, align=1
    )
    assert again.report.proof < 1e-5
    assert again.report.refit.startswith("kept")
    soft = onnx_prune.prune(first.model, budget=Budget(macs=0.7), preset="sfp", **QUICK)
    assert soft.report.proof < 1e-5


@pytest.mark.parametrize(("zero", "constant"), [(("W1",), False), (("W1", "Ws"), True)])
def test_what_a_gate_multiplies_is_constant_only_where_the_gate_is(zero, constant):
    """Both weights make the channel: with a gate that the image moves the channel is no filter of zeros."""
    model = filled(GATED, {"W1": (8, 3, 3, 3), "b1": (8,), "Ws": (8, 3, 1, 1), "W2": (4, 8, 3, 3)})
    for tensor in model.graph.initializer:
        if tensor.name in zero:
            values = numpy_helper.to_array(tensor).copy()
            values[:3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    groups = analyse(model).groups
    removed = np.zeros(groups.labelled.count, bool)
    removed[np.isin(groups.component, groups.free[0].components[:3])] = True
    feeds = [{"x": np.random.default_rng(s).standard_normal((1, 3, 8, 8)).astype(np.float32)} for s in (0, 1)]
    found = constant_channels(groups, removed, feeds)
    assert found.all == constant
    assert set(found.maps) == ({"y"} if constant else set())
    if constant:
        result = onnx_prune.prune(
            model, budget=Budget(channels={groups.free[0].name: 5 / 8}), reconstruct="bias", **QUICK
        )
        assert error(model, result.model, (2, 3, 8, 8)) < 1e-5
