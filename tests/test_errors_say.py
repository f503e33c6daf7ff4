"""Every error of ours that the code makes says what is wrong, where, and what to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("models", "passes", "pipeline", "runtime", "tools")
KINDS = {"UsageError", "ReadError", "BudgetError", "ProofError", "AccuracyError"}


def missing_parts(text: str) -> Iterator[tuple[int, str]]:
    """(line, "where" or "fix") of each part that an error made in this source does not have."""
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS):
            continue
        named = {keyword.arg for keyword in node.keywords}
        for position, part in ((1, "where"), (2, "fix")):
            if part not in named and len(node.args) <= position:
                yield node.lineno, part


def test_every_error_says_where_and_what_to_do():
    sources = [ROOT / "__init__.py", *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]
    lacking = [
        f"{file.relative_to(ROOT)}:{line} has no {part}"
        for file in sources
        for line, part in missing_parts(file.read_text(encoding="utf-8"))
    ]
    assert lacking == []


@pytest.mark.parametrize("call", ['ReadError("x", fix="y")', 'UsageError("x", where="y")', 'BudgetError("x", "y")'])
def test_an_error_that_lacks_a_part_is_found(call):
    assert len(list(missing_parts(f"raise {call}"))) == 1
    assert not list(missing_parts('raise ReadError("x", "y", "z")'))
