"""What each operator does to channel labels: one small file a family, found by looking, not by listing.

A rule is a row: the operator, how labels go through it, how its constant operands are rewritten after a cut, and
sample graphs in ONNX text on which the shared battery of tests runs. See docs/adding_an_operator.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from ...tables import Table, find_row, read_table

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
def rules() -> Table[Rule]:
    """Every rule of every module in this folder, by (domain, operator)."""
    return read_table(__name__, __path__, "RULES")


def find_rule(node: gs.Node) -> Rule | None:
    """The rule of a node's operator, if there is one."""
    return find_row(rules(), node.domain, node.op)


def between_convolutions(
    nodes: str, weights: str = "", *, makes: int = 8, reads: int | None = None, size: str = "4, 4", opset: int = 17
) -> str:
    """A graph x (1, 3, 4, 4) -> Conv -> a -> nodes -> z -> Conv -> y (1, 2, size).

    nodes: from a to z
    weights: further initializers, each after a comma
    makes, reads: channels of a and of z; by default the same
    """
    return f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, {size}] y)
        <float[{makes}, 3, 1, 1] w1, float[{makes}] b1, float[2, {reads or makes}, 1, 1] w2{weights}> {{
          a = Conv (x, w1, b1)
          {nodes}
          y = Conv (z, w2)
        }}
        """
