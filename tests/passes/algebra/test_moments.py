"""Moments on disk, and what they say of themselves."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.algebra.moments import ActivationStatistics, Moments, MomentsSet, load_moments
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


def test_a_folder_that_is_not_there_is_an_error(measured, tmp_path):
    with pytest.raises(UsageError):
        measured.save(tmp_path / "no" / "m.npz")
