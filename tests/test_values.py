"""What the public functions return can be copied, kept and saved; a wrong name of a file is said."""

from __future__ import annotations

import copy
import io
import pickle

import onnx
import onnx_prune
import pytest
from onnx_prune import Plan, UsageError, models


@pytest.fixture(scope="module")
def result():
    return onnx_prune.prune(models.digits_model(), measure=False, calibration="none")


def test_a_result_is_what_it_was_after_a_pickle_and_a_copy(result):
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert again.model.SerializeToString() == result.model.SerializeToString()
        assert (again.plan, again.report) == (result.plan, result.report)


def test_an_analysis_can_be_copied():
    analysis = onnx_prune.inspect(models.digits_model())
    assert copy.deepcopy(analysis).sizes == analysis.sizes


@pytest.mark.parametrize("name", [None, 1, b"x", io.BytesIO(), "a\0b", "\ud800"])
def test_what_names_no_file_is_said(result, name):
    for takes in (result.save, result.plan.save, Plan.load):
        with pytest.raises(UsageError, match="path") as raised:
            takes(name)
        assert raised.value.where
        assert raised.value.fix


@pytest.mark.parametrize("text", [None, 1, b"{}"])
def test_what_is_no_text_is_no_plan(text):
    with pytest.raises(UsageError, match="is not a plan"):
        Plan.from_json(text)


@pytest.mark.parametrize("name", ["m.onnx", "c.npz", "data/c.npz", "link"])
def test_moments_are_not_kept_in_the_place_of_what_is_read(tmp_path, name):
    (tmp_path / "data").mkdir()
    for kept, file in zip(
        ["m.onnx", "c.npz", "data/c.npz"], [models.digits_model(), *models.digits_data()], strict=True
    ):
        (tmp_path / kept).write_bytes(file.read_bytes())
    (tmp_path / "link").symlink_to("m.onnx")
    before = (tmp_path / name).read_bytes()
    data = tmp_path / ("data" if name.startswith("data") else "c.npz")
    with pytest.raises(UsageError, match="the moments would replace what is read"):
        onnx_prune.prune(tmp_path / "m.onnx", calibration=data, samples=8, save_moments=tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


def test_models_that_are_given_stay_as_they_are():
    model = onnx.load(models.digits_model())
    before = model.SerializeToString(deterministic=True)
    data = {"calibration": str(models.digits_data()[1]), "samples": 32}
    for given in (data, {"calibration": "none"}):
        onnx_prune.apply(model, onnx_prune.prune(model, measure=False, **given).plan, measure=False)
    onnx_prune.inspect(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("budgets", [None, 0.5, "50%", {"macs": 0.5}, object()])
def test_a_sweep_takes_several_budgets(budgets):
    with pytest.raises(UsageError, match="not a list of budgets"):
        onnx_prune.sweep(models.digits_model(), budgets)


@pytest.mark.parametrize("wrong", [{"sizes": 3}, {"sizes": "n=1"}, {"metric": 3}, {"evaluate": 3}, {"samples": 10**30}])
def test_a_sweep_takes_what_prune_takes(wrong):
    with pytest.raises(UsageError, match=r"is not (a|data)"):
        onnx_prune.sweep(models.digits_model(), [0.5], **wrong)


@pytest.mark.parametrize("data", [io.BytesIO(b"x"), io.StringIO("x")])
def test_an_open_file_is_no_data(data):
    with pytest.raises(UsageError, match="is not data"):
        onnx_prune.prune(models.digits_model(), calibration=data)


def test_an_example_is_arrays_by_name():
    with pytest.raises(UsageError, match="is not an input"):
        onnx_prune.inspect(models.digits_model(), example={"x": 1})
