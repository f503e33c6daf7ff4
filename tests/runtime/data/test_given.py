"""What users give as data from Python: one behaviour for all forms of the same samples."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune import ReadError, UsageError, models
from onnx_prune.runtime.data.given import Replayed, as_array, repeatable
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data

INPUTS = model_inputs(onnx.load(models.digits_model()))
IMAGES = np.random.default_rng(0).normal(size=(96, 1, 8, 8)).astype(np.float32)
LABELS = np.arange(96) % 10
PARTS = [IMAGES[start : start + 32] for start in range(0, 96, 32)]


class Reader:
    """ONNX Runtime's CalibrationDataReader, by what it does."""

    def __init__(self):
        self._parts = iter(PARTS)

    def get_next(self):
        part = next(self._parts, None)
        return None if part is None else {"input": part}


def torch_forms():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    loader = torch.utils.data.DataLoader
    return {
        "tensor": torch.from_numpy(IMAGES),
        "tensors": {"input": torch.from_numpy(IMAGES).requires_grad_()},
        "loader": loader(data, batch_size=32),
        "loader of images alone": loader(torch.from_numpy(IMAGES), batch_size=32),
    }


FORMS = {
    "array": lambda: IMAGES,
    "arrays": lambda: {"input": IMAGES, "label": LABELS},
    "list of arrays": lambda: PARTS,
    "list of mappings": lambda: [{"input": part} for part in PARTS],
    "list of pairs": lambda: [(part, np.arange(32) % 10) for part in PARTS],
    "generator": lambda: ({"input": part} for part in PARTS),
    "function": lambda: lambda: iter(PARTS),
    "reader": Reader,
    **{
        name: lambda name=name: torch_forms()[name]
        for name in ("tensor", "tensors", "loader", "loader of images alone")
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples_in_every_iteration(form):
    data = open_data(FORMS[form](), INPUTS)
    for _ in range(2):
        assert np.array_equal(np.concatenate([batch.feeds["input"] for batch in data]), IMAGES)


@pytest.mark.parametrize("form", ["arrays", "list of pairs", "loader"])
def test_labels_come_with_them(form):
    data = open_data(FORMS[form](), INPUTS)
    assert data.labelled
    assert np.concatenate([batch.labels for batch in data])[:10].tolist() == list(range(10))


def test_a_shuffled_loader_gives_one_order():
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(torch.arange(96, dtype=torch.float32)[:, None, None, None], 8, shuffle=True)
    source = repeatable(loader)
    assert isinstance(source, Replayed)
    first, second = ([as_array(part).ravel().tolist() for part in source()] for _ in range(2))
    assert first == second


def test_what_is_given_beside_images_and_is_no_class_is_left_alone():
    data = open_data([(part, [{"boxes": np.zeros((1, 4))}] * 32) for part in PARTS], INPUTS)
    assert not data.labelled
    assert sum(batch.size for batch in data) == 96


def test_a_generator_is_read_no_farther_than_is_asked_for():
    read = []

    def parts():
        for part in PARTS:
            read.append(1)
            yield part

    assert sum(batch.size for batch in open_data(parts(), INPUTS, samples=32)) == 32
    assert len(read) <= 2


@pytest.mark.parametrize("wrong", [3, 3.5, object(), True, b"bytes", None, ["a"], [3]])
def test_what_is_no_data_is_refused_with_what_to_give(wrong):
    with pytest.raises(UsageError, match="is not data") as caught:
        open_data(wrong, INPUTS)
    assert "DataLoader" in caught.value.fix


@pytest.mark.parametrize("wrong", [[[3]], (3 for _ in range(1)), [(IMAGES, LABELS, 3)], [], (part for part in ())])
def test_wrong_batches_are_refused(wrong):
    with pytest.raises(ReadError):
        open_data(wrong, INPUTS)


def test_one_array_is_for_one_input():
    with pytest.raises(UsageError, match="the model has 2 inputs"):
        open_data(IMAGES, (*INPUTS, *INPUTS))
