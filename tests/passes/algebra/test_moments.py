"""Moments on disk, and what they say of themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx_prune.passes.algebra.moments import ActivationStatistics, Moments, MomentsSet
from onnx_prune.passes.algebra.moments_file import load_moments
from onnx_prune.passes.errors import ReadError, UsageError


@pytest.fixture
def measured() -> MomentsSet:
    rng = np.random.default_rng(0)
    u = rng.standard_normal((50, 6)) + 2
    full = Moments(50, u.mean(0), u.T @ u / 50, 3, 2)
    wide = Moments(50, u.mean(0), None, 6, 1, u[:7].astype(np.float32))
    statistics = ActivationStatistics(rng.random(3), rng.random(3), rng.random(3))
    return MomentsSet("abc", {"a": (full,), "b": (full,), "grouped": (full, wide)}, {"t/x.0": statistics})


def test_what_is_saved_is_loaded(measured, tmp_path):
    path = measured.save(tmp_path / "m.npz")
    loaded = load_moments(path, "abc")
    assert list(tmp_path.iterdir()) == [path]
    assert list(loaded) == ["a", "b", "grouped"]
    for name in measured:
        for before, after in zip(measured.groups(name), loaded.groups(name), strict=True):
            assert (before.rows, before.channels, before.kernel) == (after.rows, after.channels, after.kernel)
            for field in ("mean", "second", "samples"):
                assert np.array_equal(getattr(before, field), getattr(after, field))
    assert np.array_equal(loaded.activations["t/x.0"].variance, measured.activations["t/x.0"].variance)
    assert loaded["a"] is loaded["b"], "moments that are shared were stored twice"


def test_the_covariance_is_that_of_the_rows(measured):
    m = measured["a"]
    u = np.random.default_rng(0).standard_normal((50, 6)) + 2
    assert m.covariance == pytest.approx(np.cov(u.T, bias=True))


def test_moments_of_another_graph_are_refused(measured, tmp_path):
    path = measured.save(tmp_path / "m.npz")
    with pytest.raises(ReadError, match="another graph"):
        load_moments(path, "abd")


def test_what_is_no_moments_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    np.savez(tmp_path / "c.npz", header=np.array('{"format": "something else"}'))
    for name in ("a.npz", "b.npz", "c.npz", "none.npz"):
        with pytest.raises(ReadError):
            load_moments(tmp_path / name, "abc")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header, arrays: header["consumers"].update(a=[]),
        lambda header, arrays: header["consumers"].update(a=[7]),
        lambda header, arrays: header["consumers"].update(a=[-1]),
        lambda header, arrays: header["moments"][0].update(channels=2),
        lambda header, arrays: header["moments"][0].update(rows=True),
        lambda header, arrays: header["moments"][0].update(nobody=1),
        lambda header, arrays: header.update(moments={}),
        lambda header, arrays: header.pop("activations"),
        lambda header, arrays: arrays.pop("moments.0.mean"),
        lambda header, arrays: arrays.pop("moments.1.samples"),
        lambda header, arrays: arrays["moments.0.second"].fill(np.nan),
        lambda header, arrays: np.fill_diagonal(arrays["moments.0.second"], -1),
        lambda header, arrays: arrays["moments.0.second"].__setitem__((0, 1), 1e3),
        lambda header, arrays: arrays["moments.0.mean"].fill(1e3),
        lambda header, arrays: arrays["moments.0.mean"].fill(1e300),
        lambda header, arrays: arrays["activations.0.zeros"].fill(2),
        lambda header, arrays: arrays.update({"activations.0.mean": np.zeros(4)}),
        lambda header, arrays: arrays.update({"moments.0.mean": np.array(["a"] * 6)}),
    ],
)
def test_moments_that_are_those_of_no_data_are_refused(measured, tmp_path, spoil):
    arrays = dict(np.load(measured.save(tmp_path / "m.npz")))
    header = json.loads(str(arrays.pop("header")))
    spoil(header, arrays)
    np.savez(tmp_path / "m.npz", header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(ReadError, match="the moments are spoilt"):
        load_moments(tmp_path / "m.npz", "abc")


@pytest.mark.parametrize("header", ["[" * 100_000, "[]", "9" * 5000, "null", "\x00"])
def test_a_header_that_is_none_is_refused(tmp_path, header):
    np.savez(tmp_path / "m.npz", header=np.array(header))
    with pytest.raises(ReadError):
        load_moments(tmp_path / "m.npz", "abc")


def test_a_folder_that_is_not_there_is_an_error(measured, tmp_path):
    with pytest.raises(UsageError):
        measured.save(tmp_path / "no" / "m.npz")
