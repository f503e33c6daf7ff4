"""A model of huge images is proved and timed on smaller ones, wherever it runs on them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.pipeline.prune import prune
from onnx_prune.runtime.data.random_feeds import sample_feeds
from onnx_prune.runtime.reduced import fitted


def edges(height=2160, width=3840, tail=""):
    """Three convolutions, one of them halves, and an upsampling: an edge detector."""
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, {height}, {width}] x) => (float[1, 1, {height}, {width}] y)
    {{
      a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w0)
      b = Relu (a)
      c = Conv <pads = [1, 1, 1, 1]> (b, w1)
      d = Relu (c)
      e = Resize <mode = "nearest"> (d, , scales)
      {tail or "f = Identity (e)"}
      y = Conv (f, w2)
    }}""")
    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (24, 16, 3, 3), "w2": (1, 24, 1, 1)}
    weights = {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    weights["scales"] = np.array([1, 1, 2, 2], np.float32)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def test_four_thousand_columns_are_proved_on_fewer(tmp_path):
    result = prune(edges(), calibration="none", measure=False)
    assert result.report.inputs == {"x": (1, 3, 2160, 3840)}
    height, width = result.report.proved_at["x"][2:]
    assert height < 1080
    assert width < 1920
    assert result.report.macs[0] == 1080 * 1920 * 9 * (16 * 3 + 24 * 16) + 2160 * 3840 * 24
    result.save(tmp_path / "cut.onnx")
    saved = onnx.load(tmp_path / "cut.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in saved] == [1, 3, 2160, 3840]


def test_a_wrong_cut_is_refused_at_the_smaller_size(monkeypatch):
    from onnx_prune.passes.channels.cut import Cut
    from onnx_prune.passes.errors import ProofError

    right = Cut.compress
    monkeypatch.setattr(
        Cut, "compress", lambda c, constant, v: right(c, constant, np.roll(v, 1, 1) if constant.name == "w1" else v)
    )
    with pytest.raises(ProofError):
        prune(edges(), calibration="none", measure=False)


def test_small_images_stay_as_they_are():
    assert prune(edges(64, 96), calibration="none", measure=False).report.proved_at is None


@pytest.mark.parametrize("height", [32, 2048])
def test_of_many_samples_one_is_run(height):
    model = edges(height, height)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    many = 4000 if height == 32 else 2
    result = prune(model, calibration="none", measure=False, sizes={"n": many})
    assert result.report.inputs == {"x": (many, 3, height, height)}
    first, _, *size = result.report.proved_at["x"]
    assert first == 1
    assert (size == [32, 32]) == (height == 32)


def test_a_model_that_needs_its_size_is_run_at_it(monkeypatch):
    """A table of the full size is added: nothing smaller runs."""
    monkeypatch.setattr("onnx_prune.runtime.reduced._HEAVY_ELEMENTS", 1000)
    model = edges(512, 512, "f = Add (e, table)")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, 512, 512), np.float32), "table"))
    assert prune(model, calibration="none", measure=False).report.proved_at is None


def test_a_fitted_model_is_a_copy_with_other_inputs():
    model = edges(64, 96)
    before = model.SerializeToString()
    assert fitted(model, sample_feeds(model)) is model
    smaller = fitted(model, {"x": np.zeros((1, 3, 32, 32), np.float32)})
    assert [d.dim_value for d in smaller.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 32, 32]
    assert model.SerializeToString() == before
