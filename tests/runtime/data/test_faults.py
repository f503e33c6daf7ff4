"""Data as they are met in the field: broken, hostile, or of the wrong form; each ends as unreadable, never as a bug."""

from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.runtime.data.inputs import ModelInput
from onnx_prune.runtime.data.open import example_input, open_data
from onnx_prune.runtime.data.preprocess import Preprocessing
from PIL import Image

IMAGES = (ModelInput("x", np.dtype(np.float32), (None, 3, 8, 8)),)
FOURS = (ModelInput("x", np.dtype(np.float32), (4, 3, 8, 8)),)


@pytest.fixture
def folder(tmp_path):
    """Twelve good images, and room for a bad one."""
    (tmp_path / "images").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i:02}.png")
    return tmp_path / "images"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


BROKEN = {
    "junk": b"junk",
    "empty": b"",
    "400 megapixels": png(20000, 20000, chunk(b"IDAT", zlib.compress(b""))),
    "a header of 2^31": png(2**31 - 1, 2**31 - 1),
    "a text bomb": png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27)))),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["aa.png", "00a.png"])  # the first of all, and one among them
def test_one_broken_image_among_good_ones_is_left_out_and_counted(folder, kind, name):
    (folder / name).write_bytes(BROKEN[kind])
    data = open_data(folder, IMAGES, batch=5)
    assert sum(len(batch.feeds["x"]) for batch in data) == 12
    assert data.broken() == 1
    assert sum(len(batch.feeds["x"]) for batch in data) == 12  # and again
    assert data.broken() == 1


def test_of_a_model_with_a_fixed_batch_all_batches_are_whole(folder):
    (folder / "05a.png").write_bytes(b"junk")
    assert [len(batch.feeds["x"]) for batch in open_data(folder, FOURS)] == [4, 4, 4]


def test_many_broken_images_are_refused(folder):
    for i in range(3):
        (folder / f"{i:02}.png").write_bytes(b"junk")
    with pytest.raises(ReadError, match="an image cannot be read"):
        list(open_data(folder, IMAGES))


def test_folders_links_and_pipes_that_are_called_images_do_no_harm(folder):
    (folder / "z.png").mkdir()
    assert sum(len(batch.feeds["x"]) for batch in open_data(folder, IMAGES)) == 12
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    assert sum(len(batch.feeds["x"]) for batch in open_data(folder, IMAGES)) == 12
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(ReadError):
        list(open_data(folder, IMAGES))


def test_a_zip_with_a_wrong_checksum_is_refused(folder, tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    content = bytearray(path.read_bytes())
    for info in zipfile.ZipFile(path).infolist():
        content[info.header_offset + 30 + len(info.filename) + info.file_size - 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(ReadError, match="an image cannot be read"):
        list(open_data(path, IMAGES))


def npy(header):
    padded = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3, 8, 8)}",
    "{'descr': '|V1000000000', 'fortran_order': False, 'shape': (4,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 4}",
    "{",
    "[" * 100,
]


@pytest.mark.parametrize("header", HEADERS)
def test_arrays_with_a_false_header_are_refused(header, tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(header))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", npy(header))
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        with pytest.raises(ReadError):
            open_data(path, IMAGES)


def test_an_encrypted_archive_is_refused(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x.npy", b"secret")
        archive.writestr("x.png", b"secret")
    held = bytearray(content.getvalue())
    at = 0
    while (at := held.find(b"PK\x01\x02", at)) >= 0:  # the flag of encryption, in the directory
        held[at + 8] |= 1
        at += 4
    for name in ("a.npz", "a.zip"):
        (tmp_path / name).write_bytes(held)
        with pytest.raises(ReadError):
            list(open_data(tmp_path / name, IMAGES))


@pytest.mark.parametrize("shape", [(6, 3, 9, 9), (6, 3), (6,), (), (0, 3, 8, 8)])
def test_arrays_of_the_wrong_shape_cannot_be_read(shape):
    with pytest.raises(ReadError):
        open_data({"x": np.zeros(shape, np.float32)}, IMAGES)


FUNCTIONS = {
    "raises": "def f():\n    raise KeyError('mine')",
    "raises late": "import numpy as n\ndef f():\n  yield {'x': n.zeros((1, 3, 8, 8), 'f4')}\n  raise KeyError('mine')",
    "is no syntax": "def f(:",
    "fails at import": "raise KeyError('mine')",
    "ends python": "import sys; sys.exit(3)",
    "ends python while it yields": "import sys\ndef f():\n    sys.exit(0)",
    "raises what nobody catches": "def f():\n    raise BaseException('own')",
    "raises what cannot be printed": "class E(Exception):\n  def __str__(self): raise E\ndef f():\n    raise E",
    "has too few labels": "import numpy as n\ndef f():\n    yield {'x': n.zeros((8, 3, 8, 8), 'f4')}, n.arange(3)",
    "yields nothing again": "import numpy as n\nt = []\ndef f():\n    t.append(0)\n    if len(t) < 2:\n"
    "        yield {'x': n.zeros((8, 3, 8, 8), 'f4')}",
    "wants arguments": "def f(a): yield a",
    "yields no batches": "def f(): return [1, 2]",
    "is no iterable": "def f(): return 3",
    "yields nothing": "def f(): return []",
    "yields empty batches": "def f():\n    import numpy\n    yield {'x': numpy.zeros((0, 3, 8, 8), 'f4')}",
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_function_that_fails_in_any_way_is_said_with_its_own_words(kind, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "faulty.py").write_text(FUNCTIONS[kind])
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    with pytest.raises(ReadError) as error:
        list(open_data("faulty:f", IMAGES))
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    assert "faulty:f" in str(error.value.where)
    assert "mine" not in FUNCTIONS[kind] or "KeyError: 'mine'" in str(error.value.where)


def test_batches_of_a_function_are_made_to_the_size_that_the_model_fixes():
    def batches():
        for count in (3, 6, 2):
            yield {"x": np.full((count, 3, 8, 8), count, np.float32)}, np.arange(count)

    data = open_data(batches, FOURS)
    assert [batch.feeds["x"][:, 0, 0, 0].tolist() for batch in data] == [[3, 3, 3, 6], [6, 6, 6, 6]]
    assert [batch.labels.tolist() for batch in data] == [[0, 1, 2, 0], [1, 2, 3, 4]]


def test_too_few_samples_for_a_fixed_batch_are_repeated():
    data = open_data(
        {"x": np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones((3, 3, 8, 8), np.float32)}, FOURS
    )
    assert [batch.feeds["x"][:, 0, 0, 0].tolist() for batch in data] == [[0, 1, 2, 0]]
    assert len(data.example()["x"]) == 4


def test_one_input_for_one_run_is_told_from_samples(tmp_path):
    kind = np.dtype(np.float32)
    states = (ModelInput("x", kind, (None, 512)), ModelInput("h", kind, (2, None, 8)), ModelInput("rate", kind, ()))
    arrays = {"x": np.zeros((1, 512), kind), "h": np.zeros((2, 1, 8), kind), "rate": np.zeros((), kind)}
    assert example_input(arrays, states).keys() == arrays.keys()
    np.savez(tmp_path / "one.npz", **arrays)
    assert example_input(tmp_path / "one.npz", states).keys() == arrays.keys()
    assert example_input({**arrays, "h": np.zeros((3, 1, 8), kind)}, states) is None
    assert example_input({"x": np.zeros((5, 3, 8, 8), kind)}, IMAGES) is None


def test_what_a_named_function_prints_is_not_on_standard_output(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    body = "    print('noise')\n    yield {'x': n.ones((9, 3, 8, 8), 'f4')}"
    source = f"print('at import')\nimport numpy as n\ndef f():\n{body}"
    (tmp_path / "noisy.py").write_text(source)
    assert len(list(open_data("noisy:f", IMAGES))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "noise" in err
    assert "at import" in err


def test_arrays_of_the_other_byte_order_are_read():
    given = np.arange(4 * 192, dtype=">f4").reshape(4, 3, 8, 8)
    (batch,) = open_data({"x": given}, IMAGES)
    assert batch.feeds["x"].dtype == np.dtype(np.float32)
    assert sorted(batch.feeds["x"][:, 0, 0, 0]) == [0, 192, 384, 576]


def _member_that_is_no_array(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"1")


def _one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros((4, 3, 8, 8), np.float32))


@pytest.mark.parametrize("write", [_member_that_is_no_array, _one_array])
def test_an_npz_that_is_something_else_is_refused(write, tmp_path):
    write(tmp_path / "a.npz")
    with pytest.raises(ReadError, match="the arrays cannot be read"):
        open_data(tmp_path / "a.npz", IMAGES)


@pytest.mark.parametrize("text", ["9" * 30, "-3", "\u00b2", ""])
def test_a_class_in_a_tar_is_a_small_whole_number(text, tmp_path, folder):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for image in sorted(folder.iterdir()):
            archive.add(image, image.name)
            entry = tarfile.TarInfo(f"{image.stem}.cls")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    with pytest.raises(ReadError, match="a class is not a whole number"):
        open_data(tmp_path / "a.tar", IMAGES)


@pytest.mark.parametrize("size", [(8, 8, 8), (8,), (), 0, (8, 0)])
def test_a_size_of_an_image_is_one_number_or_two(size):
    with pytest.raises(UsageError, match="no size of an image"):
        Preprocessing(resize=size)


def test_a_zip_with_a_name_that_is_no_text_is_refused(folder, tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"\u00e9{file.name}")
    content = bytearray(path.read_bytes())
    for info in zipfile.ZipFile(path).infolist():
        content[info.header_offset + 31] = 0x41  # in front of the member alone: half a letter is left
    path.write_bytes(content)
    with pytest.raises(ReadError, match="an image cannot be read"):
        list(open_data(path, IMAGES))
