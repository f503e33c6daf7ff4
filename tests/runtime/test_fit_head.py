"""A new head says what the original says, as far as pooled maps can tell."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_prune import Budget, UsageError, models, prune
from onnx_prune.passes.rewrite.replace_head import find_head
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.fit_head import fit_head
from onnx_prune.runtime.measure.calibrate import Calibration
from onnx_prune.runtime.session import open_session

NET = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 6, 6] x) => (float[N, 5] y) {
  c = Conv <pads = [1, 1, 1, 1]> (x, w)
  r = Relu (c)
  f = Flatten (r)
  h = Gemm <transB = 1> (f, w1, b1)
  s = Relu (h)
  y = Gemm <transB = 1> (s, w2, b2)
}
"""


@pytest.fixture(scope="module")
def classifier(nets):
    """Each row of w1 weighs all positions of a channel alike; b1 keeps what it makes above zero, if asked for."""

    def build(above_zero):
        rng = np.random.default_rng(0)
        w1 = np.repeat(rng.standard_normal((7, 8)), 36, axis=1) / 36
        values = {
            "w": rng.standard_normal((8, 3, 3, 3)),
            "w1": w1,
            "b1": np.full(7, 100.0 if above_zero else 0.0),
            "w2": rng.standard_normal((5, 7)),
            "b2": rng.standard_normal(5),
        }
        return nets.with_(NET, **{name: value.astype(np.float32) for name, value in values.items()})

    return build


def outputs(model, images):
    return open_session(model).run({"x": images})["y"]


def changed(model, data):
    return fit_head(analyse(model).groups.labelled, model, data, Calibration())[0]


def test_a_head_that_is_linear_in_the_pooled_maps_is_found_again(nets, classifier):
    model, images = classifier(above_zero=True), nets.images((3, 6, 6), 64)
    fitted = changed(model, nets.batches(images, 8))
    assert [n.op_type for n in fitted.graph.node][-3:] == ["GlobalAveragePool", "Flatten", "Gemm"]
    new = nets.images((3, 6, 6), 20) * 1.5
    np.testing.assert_allclose(outputs(fitted, new), outputs(model, new), rtol=2e-3, atol=0.1)


def test_the_fit_is_nearer_to_the_original_than_the_start(nets, classifier):
    model, images = classifier(above_zero=False), nets.images((3, 6, 6), 128)
    new = nets.images((3, 6, 6), 40)[::-1] * 1.1
    wanted = outputs(model, new)
    fit, start = (np.square(outputs(changed(model, d), new) - wanted).mean() for d in (nets.batches(images, 16), None))
    assert fit < 0.3 * start
    assert fit < 0.5 * wanted.var(0).mean()


def test_a_run_ends_with_the_new_head_and_counts_it():
    result = prune(models.vgg16_cifar(), budget=Budget(macs=0.5), replace_head="gap", calibration="none", measure=False)
    weights = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    channels = next(row.after for row in result.report.groups if row.name == "features.40")
    assert weights["head.weight"].shape == (10, channels)
    assert result.report.head == "gap"
    assert result.report.params[1] < result.plan.params[1]
    assert result.report.proof < 1e-5  # of the cut
    onnx.checker.check_model(result.model, full_check=True)
    with pytest.raises(UsageError):
        find_head(analyse(result.model).groups.labelled)


def test_it_is_refused_before_the_work_where_it_does_not_fit():
    told = []
    with pytest.raises(UsageError, match="no fully connected layers"):
        prune(models.resnet_cifar(20), replace_head="gap", progress=told.append)
    assert told == ["reading the model"]
    with pytest.raises(UsageError, match="there is no 'max'"):
        prune(models.vgg16_cifar(), replace_head="max")
