"""Write docs/operators.md from the rules: python -m onnx_prune.tools.lab.operators_doc."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...passes.channels.rules import Rule, rules

TARGET = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
_HEAD = """\
# Operators

Written by `python -m onnx_prune.tools.lab.operators_doc` from the rules in `passes/channels/rules/`; a test keeps it up
to date.

An operator that is missing here is unknown: what it reads stays, what follows it is pruned on its own. An axis that a
rule says stays is pinned with that reason (`onnx-prune inspect` shows it); every other axis loses channels exactly: the
cut model equals the original with silenced consumers. With `--inexact`, channels that are coupled by statistics go too,
and what is left is normalised by its own.
"""


def document() -> str:
    """The page: a table a family file."""
    families: dict[str, list[Rule]] = {}
    for rule in rules().values():
        families.setdefault(rule.labels.__module__.rpartition(".")[2], []).append(rule)
    parts = [_HEAD]
    for family, found in sorted(families.items()):
        parts.append(f"\n## {family.replace('_', ' ').capitalize()}\n\n`passes/channels/rules/{family}.py`\n\n")
        parts.append("| Operators | What becomes of channels | Stays | With `--inexact` |\n|---|---|---|---|\n")
        alike: dict[Callable[..., None], list[str]] = {}
        for rule in found:
            alike.setdefault(rule.labels, []).append(f"{rule.domain}.{rule.op}".lstrip("."))
        parts += [_row(operators, labels) for labels, operators in alike.items()]
    return "".join(parts)


def _row(operators: list[str], labels: Callable[..., None]) -> str:
    said = list(_said(labels, set()))
    stays = [reason for kind, reason in said if kind == "keep"]
    coupled = [reason for kind, reason in said if kind == "couple"]
    cells = [
        ", ".join(f"`{operator}`" for operator in sorted(operators)),
        (labels.__doc__ or "").partition("\n")[0],
        "; ".join(dict.fromkeys([*stays, *coupled])),
        "goes" if coupled else "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _said(function: Callable[..., Any], seen: set[Callable[..., Any]]) -> Iterator[tuple[str, str]]:
    """("keep" or "couple", the reason) for each such call in a rule and in the rules' functions that it calls."""
    seen.add(function)
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("keep", "couple"):
            reason = node.args[1]
            if isinstance(reason, ast.Constant):
                yield node.func.attr, str(reason.value)
        elif isinstance(node.func, ast.Name):
            called = inspect.unwrap(function).__globals__.get(node.func.id)
            if inspect.isfunction(called) and called not in seen:
                yield from _said(called, seen)


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(document(), encoding="utf-8")
