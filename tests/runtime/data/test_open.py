"""Data: what is read from where, which samples, what is done to images, and what is refused."""

from __future__ import annotations

import io
import sys
import tarfile
import threading
import time
import types
import zipfile

import numpy as np
import pytest
from onnx import parser
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.runtime.data.batches import _AHEAD
from onnx_prune.runtime.data.inputs import ModelInput, model_inputs
from onnx_prune.runtime.data.open import Data, choose, in_background, open_data
from onnx_prune.runtime.data.preprocess import Preprocessing, image_reader
from onnx_prune.runtime.data.sources import Batch
from PIL import Image

NCHW = (ModelInput("x", np.dtype(np.float32), (None, 3, 4, 6)),)
FREE = (ModelInput("x", np.dtype(np.float32), (None, 3, None, None)),)
FLAT = (ModelInput("x", np.dtype(np.float32), (None, 2)),)


def picture(value: int, size: tuple[int, int] = (4, 6), kind: str = "png") -> bytes:
    """An image of (height, width) whose three channels are value, value + 1, value + 2."""
    pixels = np.broadcast_to(np.arange(value, value + 3, dtype=np.uint8), (*size, 3))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "webp" else {}))
    return file.getvalue()


@pytest.fixture(params=["folder", "zip", "tar"])
def pictures(request, tmp_path):
    """Writes {name: bytes} as a folder or as a zip and returns the path."""

    def write(files):
        if request.param == "zip":
            with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return tmp_path / "data.zip"
        if request.param == "tar":
            with tarfile.open(tmp_path / "data.tar", "w") as archive:
                for name, content in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
            return tmp_path / "data.tar"
        for name, content in files.items():
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_bytes(content)
        return tmp_path / "data"

    return write


def test_folders_are_classes_in_alphabetical_order(pictures):
    files = {f"{c}/{i}.png": picture(10 * i) for c in ("dog", "cat") for i in range(2)}
    data = open_data(pictures(files | {"dog/.hidden.png": b"", "dog/notes.txt": b""}), NCHW)
    (batch,) = data
    assert (data.samples, data.classes, data.labelled) == (4, ("cat", "dog"), True)
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.feeds["x"].shape == (4, 3, 4, 6)
    assert np.allclose(batch.feeds["x"][1, :, 0, 0] * 255, [10, 11, 12])


def test_images_in_one_folder_have_no_labels(pictures):
    data = open_data(pictures({f"a/{i}.webp": picture(i, kind="webp") for i in range(3)}), NCHW)
    assert (data.samples, data.classes, data.labelled) == (3, (), False)
    assert next(iter(data)).labels is None


def test_images_beside_class_folders_are_refused(pictures):
    with pytest.raises(UsageError, match="some do not"):
        open_data(pictures({"0.png": picture(0), "a/1.png": picture(1)}), NCHW)


def test_a_folder_without_images_and_a_broken_image_are_refused(pictures):
    with pytest.raises(ReadError, match="no image"):
        open_data(pictures({"a.txt": b""}), NCHW)
    with pytest.raises(ReadError, match=r"cannot be read(.|\n)*broken\.png"):
        open_data(pictures({"broken.png": b"no image"}), NCHW)


def test_mean_std_and_layout_are_applied_a_channel(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(50))
    how = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2))
    want = (np.array([50, 51, 52]) / 255 - how.mean) / how.std
    x = next(iter(open_data(tmp_path, NCHW, how))).feeds["x"]
    assert x.dtype == np.float32
    assert np.allclose(x[0, :, 1, 2], want, atol=1e-6)
    last = (ModelInput("x", np.dtype(np.float32), (None, 4, 6, 3)),)
    assert np.allclose(next(iter(open_data(tmp_path, last, how))).feeds["x"][0, 1, 2], want, atol=1e-6)


def test_integers_get_the_pixels(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(50))
    inputs = (ModelInput("x", np.dtype(np.uint8), (None, 1, None, None)),)
    x = next(iter(open_data(tmp_path, inputs))).feeds["x"]
    assert (x.shape, x.dtype, x[0, 0, 0, 0]) == ((1, 1, 4, 6), np.uint8, 51)
    with pytest.raises(UsageError, match="integers"):
        open_data(tmp_path, inputs, Preprocessing(mean=(0.5,)))


@pytest.mark.parametrize(
    ("how", "dims", "shape"),
    [
        (Preprocessing(), (None, 3, 5, 5), (5, 5)),
        (Preprocessing(), (None, 3, None, None), (10, 20)),
        (Preprocessing(resize=8), (None, 3, 6, 6), (6, 6)),
        (Preprocessing(resize=8), (None, 3, None, None), (8, 8)),
        (Preprocessing(resize=(4, 9)), (None, 3, None, None), (4, 9)),
        (Preprocessing(resize=8, crop=(4, 12)), (None, 3, None, None), (4, 12)),
        (Preprocessing(crop=4), None, (4, 4)),
    ],
)
def test_the_size_is_the_crop_or_the_models_or_that_of_the_resize(tmp_path, how, dims, shape):
    (tmp_path / "0.png").write_bytes(picture(0, (10, 20)))
    x = next(iter(open_data(tmp_path, (ModelInput("x", np.dtype(np.float32), dims),), how))).feeds["x"]
    assert x.shape == (1, 3, *shape)


def test_the_crop_is_the_middle():
    image = np.zeros((4, 8), np.uint8)
    image[1:3, 3:5] = 255
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    wanted = ModelInput("x", np.dtype(np.float32), (1, 1, 2, 2))
    for how in (Preprocessing(resize=(4, 8)), Preprocessing(resize=4)):
        assert (image_reader(wanted, how)(io.BytesIO(file.getvalue())) == 1).all()
    part = image_reader(wanted, Preprocessing())(io.BytesIO(file.getvalue()))  # the middle 4 x 4, halved
    assert np.allclose(part, part[0, 0, 0], atol=0.01)
    assert 0 < part[0, 0, 0] < 1


@pytest.mark.parametrize(
    ("how", "dims"),
    [
        (Preprocessing(crop=3), (None, 3, 4, 6)),
        (Preprocessing(mean=(1, 2)), (None, 3, 4, 6)),
        (Preprocessing(std=(0,)), (None, 3, 4, 6)),
        (Preprocessing(), (None, 7, 4, 6)),
        (Preprocessing(), (None, 3)),
    ],
)
def test_preprocessing_that_contradicts_the_model_is_refused(how, dims):
    with pytest.raises(UsageError):
        image_reader(ModelInput("x", np.dtype(np.float32), dims), how)


def test_an_image_without_such_a_part_is_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(0, (10, 10)))
    with pytest.raises(UsageError, match="no part of 4 x 12"):
        open_data(tmp_path, FREE, Preprocessing(resize=8, crop=(4, 12)))


def test_images_of_different_sizes_need_a_size(tmp_path):
    for i, size in enumerate([(4, 6), (6, 4)]):
        (tmp_path / f"{i}.png").write_bytes(picture(i, size))
    with pytest.raises(ReadError, match="differ in size"):
        list(open_data(tmp_path, FREE))
    assert next(iter(open_data(tmp_path, FREE, Preprocessing(resize=5)))).feeds["x"].shape == (2, 3, 5, 5)


def test_a_choice_is_balanced_random_and_seeded():
    labels = np.repeat(np.arange(4), [100, 100, 3, 100])
    chosen = choose(303, labels, 42, seed=1)
    assert np.bincount(labels[chosen]).tolist() in [[13, 13, 3, 13]]
    assert len(set(chosen.tolist())) == 42
    assert (chosen == choose(303, labels, 42, seed=1)).all()
    assert (chosen != choose(303, labels, 42, seed=2)).any()
    assert (np.diff(labels[chosen]) < 0).any(), "sorted by class, as the data are"
    assert np.ptp(np.bincount(labels[choose(303, labels, 7, seed=1)])) == 1
    assert (choose(303, labels, None, 1) == np.arange(303)).all()
    assert len(set(choose(50, None, 20, 1).tolist())) == 20


def test_arrays_are_batched_in_their_order_with_their_labels(tmp_path):
    x = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.savez(tmp_path / "a.npz", x=x, label=np.arange(7, dtype=np.uint8))
    np.save(tmp_path / "a.npy", x)
    for source in (tmp_path / "a.npz", {"x": x, "labels": np.arange(7)}):
        data = open_data(source, FLAT, batch=3)
        assert [len(b.labels) for b in data] == [3, 3, 1]
        assert (np.concatenate([b.feeds["x"] for b in data]) == x).all()
        assert np.concatenate([b.labels for b in data]).tolist() == list(range(7))
    assert not open_data(tmp_path / "a.npy", FLAT).labelled
    assert (next(iter(open_data(str(tmp_path / "a.npy"), FLAT))).feeds["x"] == x).all()


def test_labels_follow_the_samples_that_are_drawn():
    x = np.arange(20, dtype=np.float32).repeat(2).reshape(20, 2)
    (batch,) = open_data({"x": x, "label": np.arange(20)}, FLAT, samples=11)
    assert (batch.feeds["x"][:, 0] == batch.labels).all()


def test_a_batch_size_that_the_model_fixes_is_kept():
    fixed = (ModelInput("x", np.dtype(np.float32), (2, 2)),)
    data = open_data({"x": np.zeros((5, 2), np.float32)}, fixed, batch=4)
    assert ([len(b.feeds["x"]) for b in data], data.samples) == ([2, 2], 4)
    with pytest.raises(ReadError, match="do not fill one batch"):
        open_data({"x": np.zeros((1, 2), np.float32), "label": np.zeros(1, int)}, fixed)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": np.zeros((3, 2), np.float32)}, "gives 'y'; the model asks for 'x'"),
        ({"x": np.zeros((3, 2), np.float64)}, "float64 where the model asks for float32"),
        ({"x": np.zeros((3, 4), np.float32)}, r"shape \(3, 4\)"),
        ({"x": np.zeros((0, 2), np.float32)}, "same number"),
        ({"x": np.zeros((3, 2), np.float32), "label": np.zeros(2, int)}, "same number"),
        ({"x": np.zeros((3, 2), np.float32), "label": np.zeros(3)}, "class number"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_at_once(arrays, says):
    with pytest.raises(ReadError, match=says):
        open_data(arrays, FLAT)


def test_unreadable_data_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    (tmp_path / "b.npz").write_bytes(b"")
    (tmp_path / "a.zip").write_bytes(b"no archive")
    (tmp_path / "a.csv").write_text("1,2")
    for name, error in {
        "a.npz": ReadError,
        "b.npz": ReadError,
        "a.zip": ReadError,
        "a.csv": UsageError,
        "none": ReadError,
    }.items():
        with pytest.raises(error):
            open_data(tmp_path / name, NCHW)
    with pytest.raises(UsageError, match="one input"):
        open_data(tmp_path, (*NCHW, *FLAT))
    with pytest.raises(UsageError, match="at least one"):
        open_data(tmp_path, NCHW, samples=0)
    with pytest.raises(UsageError, match="only images"):
        open_data({"x": np.zeros((3, 2), np.float32)}, FLAT, Preprocessing(mean=(0.5,)))


def test_a_function_yields_feeds_with_or_without_labels(monkeypatch):
    x = np.zeros((2, 2), np.float32)
    module = types.SimpleNamespace(
        plain=lambda: ({"x": x} for _ in range(3)), labelled=lambda: [({"x": x}, [1, 0])] * 3
    )
    monkeypatch.setitem(sys.modules, "made_up", module)
    data = open_data("made_up:plain", FLAT)
    assert (data.samples, data.labelled) == (None, False)
    assert [len(list(data)), len(list(data))] == [3, 3]
    assert next(iter(open_data("made_up:labelled", FLAT))).labels.tolist() == [1, 0]
    assert len(list(open_data(module.labelled, FLAT, samples=3))) == 2
    for name, error in {"made_up:none": ReadError, "no_such_module:f": ReadError}.items():
        with pytest.raises(error, match="cannot be imported"):
            open_data(name, FLAT)


@pytest.mark.parametrize("items", [[], [3], [{"y": 1}], [{"x": [1.0, 2.0]}], [{"x": np.zeros((1, 2))}]])
def test_what_a_function_yields_is_checked_before_anything_runs(items):
    with pytest.raises(ReadError):
        open_data(lambda: items, FLAT)


def test_batches_wait_in_a_bounded_queue_and_readers_end_with_the_iteration():
    read = []
    iterator = in_background(read.append, [np.array([i]) for i in range(100)])
    for _ in range(10):
        next(iterator)
    time.sleep(0.05)
    assert 10 <= len(read) <= 11 + _AHEAD
    iterator.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("onnx-prune-data")]


def test_inputs_are_read_from_the_model():
    text = '<ir_version: 8, opset_import: ["":17]> g (float16[N,3,8] x) => (float16[N,3,8] y) {y=Identity(x)}'
    assert model_inputs(parser.parse_model(text)) == (ModelInput("x", np.dtype(np.float16), (None, 3, 8)),)
    with pytest.raises(UsageError, match="numeric"):
        model_inputs(parser.parse_model(text.replace("float16", "string")))


@pytest.mark.shared
def test_cifar_is_chosen_balanced(shared):
    data = open_data(
        shared / "data/cifar10-test.zip", (ModelInput("x", np.dtype(np.float32), (None, 3, 32, 32)),), samples=40
    )
    labels = np.concatenate([b.labels for b in data])
    assert data.classes[0] == "airplane"
    assert np.bincount(labels).tolist() == [4] * 10


@pytest.mark.parametrize(("size", "taken"), [(1, 64), (40, 80), (128, 128)])
def test_the_first_of_the_data_are_counted_in_samples_not_batches(size, taken):
    batches = [Batch({"x": np.zeros((size, 3))}, None) for _ in range(400 // size)]
    data = Data(400, (), False, lambda: iter(batches))
    assert sum(batch.size for batch in data.first(64)) == taken
    assert data.first(400) is data


def test_processes_pick_their_batches_and_know_how_large_the_others_are():
    arrays = {"x": np.arange(46, dtype=np.float32).reshape(23, 2)}
    streamed = open_data(lambda: [{"x": arrays["x"][i : i + 5]} for i in range(0, 23, 5)], FLAT)
    for data in (
        open_data(arrays, FLAT, batch=5),
        open_data(arrays, FLAT, batch=5).first(12),
        streamed,
        streamed.first(12),
    ):
        whole = list(data)
        for rank in range(2):
            picked = list(data.picked(lambda number, rank=rank: number % 2 == rank))
            assert len(picked) == len(whole)
            for number, (item, batch) in enumerate(zip(picked, whole, strict=True)):
                if number % 2 == rank:
                    assert np.array_equal(item.feeds["x"], batch.feeds["x"])
                else:
                    assert item == batch.size


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_of_16_bits_are_no_white_ones(kind, channels):
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, kind)
    wanted = ModelInput("x", np.dtype(np.float32), (None, channels, 8, 8))
    read = image_reader(wanted, Preprocessing())(io.BytesIO(file.getvalue()))
    assert read.shape == (channels, 8, 8)
    assert np.abs(read - levels / 65535).max() < 1 / 255
