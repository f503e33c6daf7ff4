"""Waves: samples that stay behind while few are enough, and catch up through whatever has changed meanwhile."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import constant_values, load, set_constant
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.calibrate import Calibration, iterate_rows
from onnx_prune.runtime.measure.waves import Waves

CHAIN = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y)
<float[5, 3, 3, 3] w1, float[6, 5, 3, 3] w2, float[4, 6, 1, 1] w3> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  r = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (r, w2)
  s = Relu (c)
  y = Conv (s, w3)
}
"""
ALL = Calibration(positions=99)


def chain() -> onnx.ModelProto:
    model, rng = parser.parse_model(CHAIN), np.random.default_rng(0)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        model.graph.initializer.append(
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), value.name)
        )
    return model


def batches(sizes: list[int]) -> list[Batch]:
    rng = np.random.default_rng(1)
    return [Batch({"x": rng.standard_normal((size, 3, 6, 6)).astype(np.float32)}, None) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "waves"),
    [([16] * 8, [16, 32, 64, 128]), ([100, 28], [100, 128]), ([7], [7]), ([1] * 3, [1, 2, 3]), ([], [])],
)
def test_waves_are_of_whole_batches_each_as_many_as_all_before(sizes, waves):
    with Waves(load(chain()), batches(sizes)) as found:
        assert found.sizes == waves
        assert found.samples == sum(sizes)
        for size in waves:
            assert found.whole(size) == size
            assert sum(found.counts(size)) == size


def test_samples_that_stayed_behind_run_through_what_was_changed_meanwhile():
    graph, data = load(chain()), batches([16] * 8)
    labelled = label_channels(graph, tensor_facts(graph))
    taps, work = find_taps(labelled), graph.copy()
    with Waves(work, data) as waves:
        few = list(waves.rows(waves.number("c"), taps.only(["c"]), ALL, 10))
        assert sum(len(rows[0]) for rows in few) == 16 * 36
        weight = work.gs.tensors()["w2"]
        set_constant(weight, constant_values(weight) * np.float32(2))
        everything = list(waves.rows(waves.number("y"), taps.only(["y"]), ALL, 128))
    expected = list(iterate_rows(to_model(work), taps.only(["y"]), data, ALL))
    assert len(everything) == len(expected) == 8
    for one, other in zip(everything, expected, strict=True):
        np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-4)
