"""Rows are found by looking, once each."""

from __future__ import annotations

import sys

import pytest
from onnx_prune.passes.tables import find_row, read_table

ROW = """
from types import SimpleNamespace
LISTED = (SimpleNamespace(op="{op}", domain="{domain}"),)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules into a package of their own; returns its path."""

    def write(**modules):
        folder = tmp_path / "a_package_of_rows"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        for name in ("", *(f".{module}" for module in modules)):
            monkeypatch.delitem(sys.modules, f"a_package_of_rows{name}", raising=False)
        return [str(folder)]

    return write


def test_every_module_that_lists_rows_is_read(package):
    path = package(
        second=ROW.format(op="B", domain="acme"), first=ROW.format(op="A", domain=""), helpers="LIST = ('C',)"
    )
    table = read_table("a_package_of_rows", path, "LISTED")
    assert list(table) == [("", "A"), ("acme", "B")]
    assert find_row(table, "acme", "B") is table["acme", "B"]
    assert [find_row(table, domain, "A") for domain in ("", None, "ai.onnx")] == [table["", "A"]] * 3
    assert find_row(table, "", "B") is None


def test_two_rows_for_one_operator_are_refused(package):
    path = package(first=ROW.format(op="A", domain=""), second=ROW.format(op="A", domain=""))
    with pytest.raises(AssertionError, match="two rows for A"):
        read_table("a_package_of_rows", path, "LISTED")
