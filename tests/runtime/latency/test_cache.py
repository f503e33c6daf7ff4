"""The cache of timed pieces: kept, merged, and never in the way."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from onnx_prune.passes.graph.scratch import scratch_folder
from onnx_prune.runtime.latency import cache
from onnx_prune.runtime.latency.cache import cache_folder, cached, keep
from onnx_prune.runtime.latency.pieces import Bench, Piece, PieceInput
from platformdirs import user_cache_path

BENCH = Bench(17, 1 << 20, "cpu", 1)


class Everything:
    """A collection that holds all pieces."""

    def __contains__(self, _):
        return True


ALL = Everything()


def piece(op="Conv", width=8):
    return Piece(op, (("group", 1),), (PieceInput((1, width, 4, 4), ("", "r", "", ""), False, 1),), 4, (width, width))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_PRUNE_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def test_what_was_timed_is_found_again_and_merged(folder):
    one, other = piece(), piece(width=16)
    keep({one: {(8, 8): 0.5, (4, 8): 0.25}}, BENCH, ALL)
    keep({other: {(16, 16): 2.0}}, BENCH, ALL)
    assert cached({one: [(8, 8), (4, 8)], other: [(16, 16)]}, BENCH) == {
        one: {(8, 8): 0.5, (4, 8): 0.25},
        other: {(16, 16): 2.0},
    }
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".lock"}, "one file, nothing temporary"


def test_what_was_disturbed_is_timed_again_and_the_quickest_time_counts(folder):
    assert keep({piece(): {(8, 8): 0.5, (4, 8): 0.2}}, BENCH, ()) == {piece(): {(8, 8): 0.5, (4, 8): 0.2}}
    assert cached({piece(): [(8, 8)]}, BENCH) == {}
    assert keep({piece(): {(8, 8): 0.4, (4, 8): 0.3}}, BENCH, ALL) == {piece(): {(8, 8): 0.4, (4, 8): 0.2}}
    assert cached({piece(): [(8, 8), (4, 8)]}, BENCH) == {piece(): {(8, 8): 0.4, (4, 8): 0.2}}


def _add(number):
    keep({piece(width=8 * number): {(8, 8): float(number)}}, BENCH, ALL)


def test_processes_that_write_at_once_lose_nothing(folder):
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        list(pool.map(_add, range(1, 13)))
    wanted = {piece(width=8 * number): [(8, 8)] for number in range(1, 13)}
    assert cached(wanted, BENCH) == {one: {(8, 8): one.whole[0] / 8} for one in wanted}


def test_a_width_that_was_not_timed_asks_for_the_piece_again(folder):
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    assert cached({piece(): [(8, 8), (4, 8)]}, BENCH) == {}


@pytest.mark.parametrize("other", [Bench(17, 64 << 20, "cpu", 1), Bench(17, 1 << 20, "cpu", 2)])
def test_other_threads_and_networks_of_another_size_are_other_times(folder, other):
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    assert cached({piece(): [(8, 8)]}, other) == {}


def test_what_was_timed_with_other_instructions_is_not_believed(folder, monkeypatch):
    """A cache that moved, or a container that hides AVX-512: the processor has the same name, and other stairs."""
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    here = cache.block_size("cpu")
    monkeypatch.setattr(cache, "block_size", lambda device: here * 2)
    assert cached({piece(): [(8, 8)]}, BENCH) == {}
    monkeypatch.setattr(cache, "block_size", lambda device: here)
    assert cached({piece(): [(8, 8)]}, BENCH) == {piece(): {(8, 8): 0.5}}


OURS = '{"format": "onnx-prune latencies 3"'
BROKEN = ["", "{", "[]", '{"format": "another"}', OURS + "}", OURS + ', "pieces": []}', OURS + ', "pieces": {"a": 1}}']


@pytest.mark.parametrize("text", [*BROKEN, "[" * 100_000, "9" * 5000])
def test_a_broken_file_is_measured_anew_and_written_over(folder, text):
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    (path,) = folder.glob("*.json")
    path.write_text(text)
    assert cached({piece(): [(8, 8)]}, BENCH) == {}
    keep({piece(): {(8, 8): 0.75}}, BENCH, ALL)
    assert cached({piece(): [(8, 8)]}, BENCH) == {piece(): {(8, 8): 0.75}}


@pytest.mark.parametrize("time", ['"quick"', "null", "true", "NaN", "Infinity", "-1", "0", "[1]", "{}"])
def test_what_is_no_time_counts_as_not_timed(folder, time):
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    (path,) = folder.glob("*.json")
    path.write_text(path.read_text().replace("0.5", time))
    assert cached({piece(): [(8, 8)]}, BENCH) == {}
    assert keep({piece(): {(8, 8): 0.75}}, BENCH, ALL) == {piece(): {(8, 8): 0.75}}
    assert cached({piece(): [(8, 8)]}, BENCH) == {piece(): {(8, 8): 0.75}}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("instead", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_its_place_holds_nobody_up(folder, instead):
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    (path,) = folder.glob("*.json")
    path.unlink()
    instead(path)
    assert cached({piece(): [(8, 8)]}, BENCH) == {}
    keep({piece(): {(8, 8): 0.75}}, BENCH, ALL)


def test_what_a_killed_run_left_there_goes(folder):
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    with scratch_folder(folder) as left:
        name = left.name.replace(f"-{os.getpid()}-", "-999999999-")
    (folder / name).mkdir()
    keep({piece(): {(8, 8): 0.25}}, BENCH, ALL)
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".lock"}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONNX_PRUNE_CACHE", str(tmp_path / "file" / "cache"))
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)
    assert cached({piece(): [(8, 8)]}, BENCH) == {}


def test_nothing_is_kept_where_the_user_wants_nothing(monkeypatch):
    monkeypatch.setenv("ONNX_PRUNE_CACHE", "")
    assert cache_folder() is None
    keep({piece(): {(8, 8): 0.5}}, BENCH, ALL)


def test_the_folder_is_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("ONNX_PRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == user_cache_path("onnx-prune", appauthor=False)
    assert sys.platform != "linux" or cache_folder() == tmp_path / "onnx-prune"
    monkeypatch.setattr("onnx_prune.runtime.latency.cache.user_cache_path", lambda *_, **__: Path("~/.cache"))
    assert cache_folder() is None, "there is no home"
