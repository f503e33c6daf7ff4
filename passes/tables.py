"""Tables of operators: every module of a folder lists its rows, and is found by looking."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Row(Protocol):
    """An entry for an operator; `domain` is "" for those of ONNX itself."""

    @property
    def op(self) -> str: ...

    @property
    def domain(self) -> str: ...


RowT = TypeVar("RowT", bound=Row)
Table = dict[tuple[str, str], RowT]


def read_table(package: str, path: Iterable[str], rows: str) -> Table:
    """The rows of every module of a package, by (domain, operator), modules in the order of their names.

    package, path: its `__name__` and `__path__`
    rows: the name under which a module lists its own; those that have none are passed over
    """
    table: Table = {}
    for module in sorted(pkgutil.iter_modules(path), key=lambda m: m.name):
        for row in getattr(importlib.import_module(f"{package}.{module.name}"), rows, ()):
            assert (row.domain, row.op) not in table, f"two rows for {row.op} in {package}"
            table[row.domain, row.op] = row
    return table


def find_row(table: Table[RowT], domain: str | None, op: str) -> RowT | None:
    """The row of an operator, if there is one."""
    return table.get(("" if domain in (None, "", "ai.onnx") else domain, op))
