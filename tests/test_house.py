"""The architecture, read from the sources: who imports whom, and what importing the package loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "onnx_prune"
# Floor -> the floors it may import. A module's floor is its folder at the root; files there are their own.
FLOORS = {
    "models": {"models"},
    "passes": {"passes"},
    "runtime": {"runtime", "passes"},
    "pipeline": {"pipeline", "runtime", "passes"},
    "iterate": {"iterate", "pipeline", "runtime", "passes"},
    "": {"pipeline", "runtime", "passes"},
    "tools": {"", "tools", "iterate", "pipeline", "runtime", "passes", "models"},
}
# Outside package -> the files that may import it.
DOORS = {"onnxruntime": ("runtime/session.py",), "torch": ("runtime/torch/*.py", "models/train_*.py")}


def source_files() -> dict[str, str]:
    """Path from the root -> text, of every module of ours."""
    skipped = {"tests", "build", "dist"}
    places = [place for place in ROOT.iterdir() if place.name not in skipped and not place.name.startswith(".")]
    files = [file for place in places for file in ([place] if place.suffix == ".py" else place.rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def module_parts(path: str) -> tuple[str, ...]:
    """("passes", "labels") for passes/labels.py, ("passes",) for passes/__init__.py, () for the root's."""
    parts = Path(path).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def floor(parts: tuple[str, ...]) -> str:
    return parts[0] if parts else ""


def imports(path: str, text: str, modules: set[tuple[str, ...]]) -> Iterator[tuple[bool, bool, tuple[str, ...]]]:
    """(relative?, while loading?, what) for each import; what, if relative, is a module's parts from the root.

    `from ..passes import plan` is an import of passes.plan where that is a module, else of passes.
    """
    package = Path(path).parent.parts
    tree = ast.parse(text)
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for n in ast.walk(f)}
    guarded = {
        id(n)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for n in ast.walk(branch)
    }
    for node in ast.walk(tree):
        at_load = id(node) not in inside | guarded
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield False, at_load, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            named = tuple(node.module.split(".")) if node.module else ()
            if not node.level:
                yield False, at_load, named
                continue
            base = package[: len(package) - node.level + 1] + named
            for alias in node.names:
                yield True, at_load, (*base, alias.name) if (*base, alias.name) in modules else base


def violations(files: dict[str, str]) -> list[str]:
    """Every import that breaks the house's rules, as "path: what"."""
    modules = {module_parts(path) for path in files}
    found = []
    for path, text in files.items():
        own = floor(module_parts(path))
        if own not in FLOORS:
            found.append(f"{path}: stands on no floor")
            continue
        for relative, _, parts in imports(path, text, modules):
            if relative and floor(parts) not in FLOORS[own]:
                found.append(f"{path}: imports {'.'.join(parts) or PACKAGE}")
            if not relative and parts[0] == PACKAGE:
                found.append(f"{path}: imports our own {'.'.join(parts)} by its absolute name")
            if not relative and not any(fnmatch(path, door) for door in DOORS.get(parts[0], ("*",))):
                found.append(f"{path}: imports {parts[0]}")
    return found


def import_cycle(files: dict[str, str]) -> list[str] | None:
    """Modules that import one another in a circle while they load, if there are any."""
    modules = {module_parts(path) for path in files}
    graph = {
        module_parts(path): {p for relative, at_load, p in imports(path, text, modules) if relative and at_load}
        for path, text in files.items()
    }
    try:
        TopologicalSorter({m: needs - {m} for m, needs in graph.items()}).prepare()
    except CycleError as error:
        return [".".join(parts) or PACKAGE for parts in error.args[1]]
    return None


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has loaded after `statement`."""
    report = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", f"{statement}; {report}"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_no_import_leaves_its_floor():
    assert violations(source_files()) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("passes/a.py", "from ..runtime import session"),
        ("passes/rules/a.py", "from ...runtime.session import Session"),
        ("passes/a.py", "def f():\n    from ..tools.cli import main"),
        ("models/a.py", "from ..passes import errors"),
        ("runtime/a.py", "from .. import prune"),
        ("runtime/a.py", "from ..pipeline import prune"),
        ("pipeline.py", "from .tools import cli"),
        ("runtime/a.py", "import onnxruntime as ort"),
        ("runtime/a.py", "from onnxruntime.capi import x"),
        ("runtime/session.py", "import torch"),
        ("tools/a.py", "import torch.nn"),
        ("models/resnet.py", "import torch"),
        ("passes/a.py", "import onnx_prune.passes.errors"),
        ("passes/a.py", "from onnx_prune.passes import errors"),
        ("elsewhere/a.py", ""),
    ],
)
def test_a_forbidden_import_is_found(path, text):
    assert [line for line in violations({path: text}) if line.startswith(path)]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("runtime/session.py", "def f():\n    import onnxruntime"),
        ("runtime/torch/a.py", "import torch\nfrom ..session import Session\nfrom ...passes import errors"),
        ("models/train_a.py", "from torch import nn"),
        ("__init__.py", "from .pipeline import prune"),
        ("tools/a.py", "from .. import prune\nfrom ..models import resnet"),
    ],
)
def test_an_allowed_import_is_not(path, text):
    assert violations({path: text}) == []


def test_no_modules_import_one_another_in_a_circle():
    assert import_cycle(source_files()) is None


def test_a_circle_is_found():
    circle = {
        "passes/a.py": "from .b import x",
        "passes/b.py": "from . import c",
        "passes/c.py": "from ..passes import a",
    }
    assert import_cycle(circle)
    assert not import_cycle(circle | {"passes/c.py": "def f():\n    from ..passes import a"})


def test_the_listed_packages_are_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {(PACKAGE, *module_parts(path)) for path in source_files() if path.endswith("__init__.py")}
    assert sorted(listed) == sorted(".".join(parts) for parts in folders)


def test_every_module_lies_in_a_package():
    files = source_files()
    assert [path for path in files if (Path(path).parent / "__init__.py").as_posix() not in files] == []


def test_importing_the_package_loads_neither_torch_nor_onnxruntime():
    assert not loaded_by("import onnx_prune, onnx_prune.runtime.session") & set(DOORS)


def test_what_an_import_loads_is_seen():
    assert "onnxruntime" in loaded_by("import onnx_prune, onnxruntime")
