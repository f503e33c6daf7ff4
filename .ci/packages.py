"""What the wheel and the sdist hold: one package without developer tools, and all that the tests need."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

LEFT_OUT = tuple(f"onnx_prune/{name}/" for name in ("tests", "tools/lab", "docs", "examples", ".ci"))
IN_THE_SDIST = (
    ".ci/backend.py",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "constraints.txt",
    "docs/methods.md",
    "examples/first_steps.ipynb",
    "models/digits.onnx",
    "tests/conftest.py",
    "tests/passes/conftest.py",
    "tools/lab/bench.py",
)


def check_wheel(path: Path) -> None:
    """One top-level package, and nothing of the developers'."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert sorted(top for top in tops if not top.endswith(".dist-info")) == ["onnx_prune"], tops
    stray = [name for name in names if name.startswith(LEFT_OUT)]
    assert not stray, stray
    assert "onnx_prune/models/digits.onnx" in names, "the demo's network is missing"


def check_sdist(path: Path) -> None:
    """All that is needed to build, read and test."""
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    missing = [name for name in IN_THE_SDIST if name not in names]
    assert not missing, missing


for file in map(Path, sys.argv[1:]):
    (check_wheel if file.suffix == ".whl" else check_sdist)(file)
