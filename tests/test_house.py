"""The architecture, read from the sources: who imports whom, and what importing the package loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
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
    "": {"pipeline", "runtime", "passes"},
    "__main__": {"tools"},
    "tools": {"", "tools", "pipeline", "runtime", "passes", "models"},
}
# Outside package -> the files that may import it.
DOORS = {
    "onnxruntime": ("runtime/device.py", "runtime/session.py"),
    "torch": ("runtime/torch/*.py", "models/train_*.py", "tools/lab/hand_written.py"),
}
LAB = "tools/lab"  # for the project's developers: no package of a wheel
MOST_FILES = 17  # in a folder beside its rooms


def source_files() -> dict[str, str]:
    """Path from the root -> text, of every module of ours."""
    skipped = {"tests", "build", "dist"}
    places = [place for place in ROOT.iterdir() if place.name not in skipped and not place.name.startswith(".")]
    files = [file for place in places for file in ([place] if place.suffix == ".py" else place.rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def module_parts(path: str) -> tuple[str, ...]:
    """("passes", "labels") for passes/channels/labels.py, ("passes",) for passes/__init__.py, () for the root's."""
    parts = Path(path).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def floor(parts: tuple[str, ...]) -> str:
    return parts[0] if parts else ""


def imports(path: str, text: str, modules: set[tuple[str, ...]]) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """(relative?, what) for each import, wherever it stands; what, if relative, is a module's parts from the root.

    `from ..passes import plan` is an import of passes.plan where that is a module, else of passes.
    """
    package = Path(path).parent.parts
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield False, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            named = tuple(node.module.split(".")) if node.module else ()
            if not node.level:
                yield False, named
                continue
            base = package[: len(package) - node.level + 1] + named
            for alias in node.names:
                yield True, (*base, alias.name) if (*base, alias.name) in modules else base


def violations(files: dict[str, str]) -> list[str]:
    """Every import that breaks the house's rules, as "path: what"."""
    modules = {module_parts(path) for path in files}
    found = []
    for path, text in files.items():
        own = floor(module_parts(path))
        if own not in FLOORS:
            found.append(f"{path}: stands on no floor")
            continue
        for relative, parts in imports(path, text, modules):
            if relative and floor(parts) not in FLOORS[own]:
                found.append(f"{path}: imports {'.'.join(parts) or PACKAGE}")
            if not relative and parts[0] == PACKAGE:
                found.append(f"{path}: imports our own {'.'.join(parts)} by its absolute name")
            if not relative and not any(fnmatch(path, door) for door in DOORS.get(parts[0], ("*",))):
                found.append(f"{path}: imports {parts[0]}")
    return found


def arrows(files: dict[str, str]) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """Module -> the modules of ours that it imports anywhere: while loading, in a function, for its types."""
    modules = {module_parts(path) for path in files}
    return {
        module_parts(path): {parts for relative, parts in imports(path, text, modules) if relative}
        for path, text in files.items()
    }


def circle(graph: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[str] | None:
    try:
        TopologicalSorter({m: needs - {m} for m, needs in graph.items()}).prepare()
    except CycleError as error:
        return [".".join(parts) or PACKAGE for parts in error.args[1]]
    return None


def import_cycle(files: dict[str, str]) -> list[str] | None:
    """Modules that import one another in a circle, if there are any; else rooms of one folder that do.

    The rooms of a folder are its subfolders, and each file that stands beside them.
    """
    graph = arrows(files)
    found = circle(graph)
    folders = {parts[:depth] for parts in graph for depth in range(len(parts))}
    for folder in sorted(folders):
        depth = len(folder) + 1
        rooms: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for module, needs in graph.items():
            if len(module) >= depth and module[: depth - 1] == folder:
                inside = {need[:depth] for need in needs if len(need) >= depth and need[: depth - 1] == folder}
                rooms.setdefault(module[:depth], set()).update(inside)
        found = found or circle(rooms)
    return found


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
        ("passes/channels/rules/a.py", "from ....runtime.session import Session"),
        ("passes/a.py", "def f():\n    from ..tools.cli import main"),
        ("models/a.py", "from ..passes import errors"),
        ("runtime/a.py", "from .. import prune"),
        ("runtime/a.py", "from ..pipeline import prune"),
        ("pipeline/prune.py", "from ..tools import cli"),
        ("runtime/a.py", "import onnxruntime as ort"),
        ("runtime/a.py", "from onnxruntime.capi import x"),
        ("runtime/session.py", "import torch"),
        ("tools/a.py", "import torch.nn"),
        ("tools/lab/a.py", "import torch"),
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


def test_no_modules_and_no_rooms_import_one_another_in_a_circle():
    assert import_cycle(source_files()) is None


@pytest.mark.parametrize(
    "way_back",
    [
        "from ..passes import a",
        "def f():\n    from ..passes import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import x",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(way_back):
    files = {"passes/a.py": "from .b import x", "passes/b.py": "from . import c", "passes/c.py": ""}
    assert import_cycle(files) is None
    assert import_cycle(files | {"passes/c.py": way_back})


def test_rooms_in_a_circle_are_found_where_no_modules_are():
    files = {
        "runtime/data/a.py": "from ..proof.a import x",
        "runtime/proof/a.py": "",
        "runtime/proof/b.py": "from ..data.b import x",
        "runtime/data/b.py": "",
    }
    assert circle(arrows(files)) is None
    assert set(import_cycle(files) or ()) == {"runtime.proof", "runtime.data"}


def test_no_folder_holds_too_many_files():
    count = Counter(Path(path).parent.as_posix() for path in source_files())
    assert {folder: n for folder, n in count.items() if n > MOST_FILES} == {}


def test_the_listed_packages_are_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    packages = [path for path in source_files() if path.endswith("__init__.py") and not path.startswith(LAB)]
    folders = {(PACKAGE, *module_parts(path)) for path in packages}
    assert sorted(listed) == sorted(".".join(parts) for parts in folders)


def test_every_module_lies_in_a_package():
    files = source_files()
    assert [path for path in files if (Path(path).parent / "__init__.py").as_posix() not in files] == []


def test_importing_the_package_loads_neither_torch_nor_onnxruntime():
    assert not loaded_by("import onnx_prune, onnx_prune.runtime.session") & set(DOORS)


def test_what_an_import_loads_is_seen():
    assert "onnxruntime" in loaded_by("import onnx_prune, onnxruntime")
