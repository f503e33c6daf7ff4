"""What each operator does to channel labels: one small file a family, found by looking, not by listing.

A rule is a row: the operator, how labels go through it, how its constant operands are rewritten after a cut, and
sample graphs in ONNX text on which the shared battery of tests runs. See docs/adding_an_operator.md.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from ..cut import Cut
    from ..sweep import Sweep


@dataclass(frozen=True, slots=True)
class Rule:
    """One operator.

    op: its name
    labels: sets the labels of the node's outputs and says ties, pins and splits
    rewrite: corrects attributes and constant operands after a cut, for nodes whose tensors were touched
    samples: what each is about -> a graph in ONNX text that exercises the rule on channels that can be cut
    domain: "" is ONNX itself
    """

    op: str
    labels: Callable[[Sweep], None]
    rewrite: Callable[[Cut], None] | None = None
    samples: Mapping[str, str] = field(default_factory=dict)
    domain: str = ""


@cache
def rules() -> dict[tuple[str, str], Rule]:
    """Every rule of every module in this folder, by (domain, operator)."""
    table: dict[tuple[str, str], Rule] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        for rule in getattr(importlib.import_module(f"{__name__}.{module.name}"), "RULES", ()):
            assert (rule.domain, rule.op) not in table, f"two rules for {rule.op}"
            table[rule.domain, rule.op] = rule
    return table


def find_rule(node: gs.Node) -> Rule | None:
    """The rule of a node's operator, if there is one."""
    domain = "" if node.domain in (None, "", "ai.onnx") else node.domain
    return rules().get((domain, node.op))
