"""Distillation: what is learned, what stays, and that what is no nearer is left out."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx_prune import models
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.closeness import closeness
from onnx_prune.runtime.torch.training.distill import RECIPE, check_distillable, distill

TEST, CALIBRATION = (str(path) for path in models.digits_data())
QUICK = replace(RECIPE, epochs=6, rate=3e-3)


@pytest.fixture(scope="module")
def teacher():
    return onnx.load(models.digits_model())


@pytest.fixture(scope="module")
def data(teacher):
    return open_data(CALIBRATION, model_inputs(teacher), samples=256, held_out=64)


@pytest.fixture(scope="module")
def refitted(teacher):
    """The demo at 20 % of its MACs; only biases are refitted, so that there is much to learn."""
    settings = {"calibration": CALIBRATION, "align": 1, "measure": False, "reconstruct": "bias"}
    return onnx_prune.prune(teacher, budget=onnx_prune.Budget(macs=0.2), **settings).model


def distance(teacher, model):
    test = open_data(TEST, model_inputs(teacher))
    return closeness(teacher, [model], test)[0].distance


def test_the_outputs_come_nearer_to_the_originals_on_images_that_nobody_saw(teacher, refitted, data):
    found = distill(refitted, teacher, data, data.held_out, QUICK)
    assert found.best > 0
    assert distance(teacher, found.model) < 0.7 * distance(teacher, refitted)


def test_nothing_but_values_changes(teacher, refitted, data):
    found = distill(refitted, teacher, data, data.held_out, replace(QUICK, epochs=1))
    assert [n.SerializeToString() for n in found.model.graph.node] == [
        n.SerializeToString() for n in refitted.graph.node
    ]
    assert [(t.name, t.dims) for t in found.model.graph.initializer] == [
        (t.name, t.dims) for t in refitted.graph.initializer
    ]


def test_what_is_no_nearer_on_held_out_samples_stays_as_it_came(teacher, refitted, data):
    found = distill(refitted, teacher, data, data.held_out, replace(QUICK, epochs=1, rate=10.0, clip=0.0, average=0.0))
    assert found.best == 0
    assert found.model.graph.initializer == refitted.graph.initializer


def test_labels_are_not_looked_at(teacher, refitted):
    with np.load(CALIBRATION) as held:
        arrays = {name: held[name][:128] for name in held.files}
    wrong = {**arrays, "label": arrays["label"][::-1].copy()}
    one, other = (open_data(a, model_inputs(teacher)) for a in (arrays, wrong))
    first, second = (distill(refitted, teacher, d, d, replace(QUICK, epochs=1)).model for d in (one, other))
    assert first.graph.initializer == second.graph.initializer


def test_a_model_that_cannot_be_trained_is_refused_before_the_work(teacher):
    half = onnx_prune.prune(teacher, budget=0.5, calibration="none", measure=False).model
    for tensor in half.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(UsageError, match="half-precision"):
        check_distillable(half)


def test_prune_distills_and_says_what_came_of_it(teacher):
    settings = {"calibration": CALIBRATION, "align": 1, "measure": False, "budget": onnx_prune.Budget(macs=0.1)}
    result = onnx_prune.prune(teacher, reconstruct="distill:epochs=2,rate=0.003", **settings)
    assert "distilled" in str(result.report.refit)  # or why not
    assert result.plan.reconstruct == "distill:epochs=2,rate=0.003"
