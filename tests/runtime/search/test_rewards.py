"""What is known of a search outlives its process."""

from __future__ import annotations

import os

import numpy as np
import pytest
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.search.rewards import Kept, search_key

WIDTHS = np.array([3, 5, 8])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_PRUNE_CACHE", str(tmp_path))
    return tmp_path / "searches"


def test_errors_are_known_to_the_next_process(folder):
    Kept("a").keep(WIDTHS, 0.25)
    again = Kept("a")
    assert (again(WIDTHS), again(WIDTHS + 1), again.found) == (0.25, None, 1)
    assert Kept("b")(WIDTHS) is None


def test_half_a_line_is_what_a_kill_leaves(folder):
    Kept("a").keep(WIDTHS, 0.25)
    with (folder / "a.jsonl").open("a") as file:
        file.write('["3,5,9", 0.')
    again = Kept("a")
    assert again.found == 1
    again.keep(WIDTHS + 1, 0.5)
    assert Kept("a")(WIDTHS + 1) == 0.5


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"[" * 100_000, b'["a", NaN]', b'["a", 7]', b'["a", "b"]', b'{"a": 1}', b"9" * 5000]
)
def test_what_is_no_error_of_a_network_is_not_known(folder, text):
    Kept("a").keep(WIDTHS, 0.25)
    (path,) = folder.iterdir()
    path.write_bytes(text + b"\n" + path.read_bytes())
    again = Kept("a")
    assert (again.found, again(WIDTHS)) == (1, 0.25)


def test_a_pipe_in_its_place_holds_nobody_up(folder):
    Kept("a").keep(WIDTHS, 0.25)
    (path,) = folder.iterdir()
    path.unlink()
    os.mkfifo(path)
    again = Kept("a")
    again.keep(WIDTHS, 0.5)
    assert again(WIDTHS) == 0.5


def test_without_a_folder_they_are_kept_in_memory(monkeypatch):
    monkeypatch.setenv("ONNX_PRUNE_CACHE", "")
    known = Kept("a")
    known.keep(WIDTHS, 0.25)
    assert (known(WIDTHS), Kept("a")(WIDTHS)) == (0.25, None)


def test_old_searches_go(folder):
    for number in range(40):
        Kept(f"{number}").keep(WIDTHS, 0.5)
    assert len(list(folder.iterdir())) == 32


def test_a_key_follows_from_samples_labels_arrays_and_words():
    x, y = np.arange(4.0).reshape(2, 2), np.array([0, 1])
    base = search_key([Batch({"x": x}, y)], [x], "l1")
    others = [
        search_key([Batch({"x": x + 1}, y)], [x], "l1"),
        search_key([Batch({"x": x}, y[::-1])], [x], "l1"),
        search_key([Batch({"x": x}, y)], [x * 2], "l1"),
        search_key([Batch({"x": x}, y)], [x], "l2"),
    ]
    assert base == search_key([Batch({"x": x}, y)], [x], "l1")
    assert base not in others
    assert len({*others}) == 4
