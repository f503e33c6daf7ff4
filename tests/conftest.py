"""Fixtures and the skipping of what this machine cannot run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from onnx_prune.runtime.device import cuda_available

CHECKOUT = Path(__file__).resolve().parents[1]
_FOLDER = Path(os.environ.get("ONNX_PRUNE_SHARED", CHECKOUT.parent / "shared"))
SHARED = _FOLDER if _FOLDER.is_dir() else None


os.environ["ONNX_PRUNE_CACHE"] = ""  # no test reads or writes the user's own; those of the cache name another


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("shared") and SHARED is None:
            item.add_marker(pytest.mark.skip(reason="no folder shared/: set ONNX_PRUNE_SHARED"))
        if item.get_closest_marker("gpu") and not cuda_available():
            item.add_marker(pytest.mark.skip(reason="CUDA does not work here"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models and data beside the checkout; for tests marked `shared`."""
    assert SHARED is not None, "mark the test with pytest.mark.shared"
    return SHARED
