"""Calibration data that say little or nonsense: a run ends well, with finite weights, and no farther off than a cut."""

import numpy as np
import onnx
import onnx.parser
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.closeness import closeness

RNG = np.random.default_rng(0)
BASE = RNG.random((64, 1, 8, 8)).astype(np.float32)
SPOILT = BASE.copy()
SPOILT[3, 0, 2, 2] = 1e6
DATA = {
    "one sample": BASE[:1],
    "two samples": BASE[:2],
    "constant images": np.broadcast_to(RNG.random((64, 1, 1, 1)), BASE.shape),
    "equal images": np.repeat(BASE[:1], 64, 0),
    "zeros": BASE * 0,
    "tiny": BASE * 1e-20,
    "huge": BASE * np.float32(1e18),
    "an outlier": np.concatenate([BASE[:63], np.full((1, 1, 8, 8), 1e19)]),
    "not a number": np.concatenate([BASE[:63], np.full((1, 1, 8, 8), np.nan)]),
    "a pixel": SPOILT,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", DATA)
def test_a_run_ends_with_finite_weights_and_outputs(kind):
    result = pruned(kind)
    assert all(np.isfinite(numpy_helper.to_array(t)).all() for t in result.model.graph.initializer)
    assert result.report.refit.startswith(("kept", "left out", "nothing"))
    assert result.report.distance < 1


@pytest.mark.parametrize("kind", ["an outlier", "not a number", "a pixel", "two samples"])
def test_the_refit_is_no_worse_than_none_on_proper_images(kind):
    proper = [Batch({"input": RNG.random((64, 1, 8, 8)).astype(np.float32)}, None)]
    models_ = [pruned(kind).model, pruned(kind, reconstruct="none").model]
    refitted, bare = closeness(onnx.load(models.digits_model()), models_, proper)
    assert refitted.distance <= bare.distance


@pytest.mark.parametrize(("kind", "said"), [("one sample", True), ("two samples", False)])
def test_that_nothing_was_held_out_is_said(kind, said):
    assert ("judged on the samples that it was fitted to" in pruned(kind).report.refit) == said


def pruned(kind, **settings):
    data = {"input": np.ascontiguousarray(DATA[kind], np.float32)}
    return onnx_prune.prune(models.digits_model(), calibration=data, measure=False, **settings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("criterion", "reconstruct"),
    [("channel-pruning", "sequential"), ("apoz", "sequential"), ("mean-activation", "channel"), ("lasso", "scalar")],
)
@pytest.mark.parametrize("factor", [1e18, 1e37])
def test_no_warning_of_numpy_leaks_out_of_a_criterion_on_huge_numbers(criterion, reconstruct, factor):
    data, how = {"input": BASE * np.float32(factor)}, {"criterion": criterion, "reconstruct": reconstruct}
    result = onnx_prune.prune(models.digits_model(), budget=0.5, calibration=data, measure=False, **how)
    assert all(np.isfinite(numpy_helper.to_array(t)).all() for t in result.model.graph.initializer)


def test_a_sample_far_beyond_the_others_is_left_out_and_counted():
    result = onnx_prune.prune(models.digits_model(), calibration={"input": SPOILT}, measure=False)
    assert "unreadable or far beyond the others, and left out: 1" in result.report.data


def test_batches_of_one_row_and_of_many_are_refitted_together():
    def batches():
        for i in range(7):
            yield {"input": np.random.default_rng(i).random((1 << i, 1, 8, 8), dtype=np.float32)}

    result = onnx_prune.prune(models.digits_model(), budget=0.5, calibration=batches, measure=False)
    assert result.report.macs[1] < result.report.macs[0]


@pytest.mark.parametrize("reconstruct", ["sequential", "blocks:layers=2,epochs=1", "distill:epochs=1"])
@pytest.mark.parametrize(
    ("tail", "outputs"),
    [
        ("y = ArgMax <axis = 1> (e)", "int64[N, 1] y"),
        ("top, y = TopK (e, k)", "int64[N, 2] y"),
        ("o = Sub (e, e) y = Greater (e, o)", "bool[N, 5] y"),
    ],
)
def test_a_model_that_says_indices_alone_is_pruned_on_data(tail, outputs, reconstruct):
    text = f"g (float[N, 6] x) => ({outputs}) {{ a = MatMul (x, u) b = Relu (a) c = MatMul (b, v) d = Relu (c) "
    text += f"e = MatMul (d, w) {tail} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    for name, shape in {"u": (6, 32), "v": (32, 32), "w": (32, 5)}.items():
        model.graph.initializer.append(numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "k"))
    data = {"x": RNG.normal(size=(128, 6)).astype(np.float32)}
    result = onnx_prune.prune(model, budget=0.6, calibration=data, measure=False, reconstruct=reconstruct)
    assert result.report.refit.startswith("kept")
    assert ("not distilled: all outputs are indices" in result.report.refit) == reconstruct.startswith("distill")
    assert 0 <= result.report.distance < 0.5


def test_a_refit_on_moments_alone_says_that_nothing_was_compared(tmp_path):
    settings = {"budget": 0.5, "measure": False}
    data = {"input": BASE}
    onnx_prune.prune(models.digits_model(), calibration=data, save_moments=str(tmp_path / "m.npz"), **settings)
    result = onnx_prune.prune(models.digits_model(), moments=str(tmp_path / "m.npz"), **settings)
    assert result.report.refit == "kept, not compared: moments hold no samples"
    assert result.report.distance is None
