"""What each operator computes, in torch: one small file a family, found by looking, not by listing.

A row names the operator and a builder: it reads the node's attributes once and returns the function that runs, from
the tensors that the node reads to the tensor (or the tuple of tensors) that it makes. See docs/torch.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import onnx
import torch.nn.functional as F
from onnx import helper

from ....passes.errors import UsageError
from ....passes.tables import Table, find_row, read_table


@dataclass(frozen=True)
class Site:
    """One node, as a builder sees it.

    node: the node
    opset: of the model
    constants: the numbers of each input, nested lists, where they are known and no parameter; else None
    attrs: attribute values by name, bytes as text
    """

    node: onnx.NodeProto
    opset: int
    constants: tuple[Any, ...] = ()
    attrs: dict[str, Any] = field(init=False)
    _inputs: tuple[bool, ...] = field(init=False)
    _outputs: tuple[bool, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
        object.__setattr__(self, "attrs", texts)
        # Plain values: a run asks for them, and torch.compile does not follow protobuf.
        object.__setattr__(self, "_inputs", tuple(map(bool, self.node.input)))
        object.__setattr__(self, "_outputs", tuple(map(bool, self.node.output)))

    @property
    def outputs(self) -> int:
        """How many outputs the node makes, unnamed ones in the middle included."""
        return len(self._outputs)

    def has(self, position: int) -> bool:
        """Whether the node reads an input at this position."""
        return position < len(self._inputs) and self._inputs[position]

    def makes(self, position: int) -> bool:
        """Whether somebody may read the output at this position."""
        return position < len(self._outputs) and self._outputs[position]


Function = Callable[..., Any]
FIX = "prune without gradients and fine-tuning, or add an entry (docs/torch.md)"


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    op: its name
    build: node -> function of its inputs, in order; None stands for an input that is left out
    host: positions of the inputs that are taken as Python values (shapes, bounds, axes), nested tuples or a number; -1
        stands for all
    scalars: whether numbers may stand in the place of 0-d tensors
    context: whether the function's first argument is the `Context`
    random: whether it draws, and so is never computed ahead of the run
    domain: "" is ONNX itself
    """

    op: str
    build: Callable[[Site], Function]
    host: tuple[int, ...] = ()
    scalars: bool = False
    context: bool = False
    random: bool = False
    domain: str = ""

    def on_host(self, position: int) -> bool:
        """Whether the input at this position is taken as a Python value."""
        return position in self.host or -1 in self.host


@dataclass(frozen=True, slots=True)
class Context:
    """What a run is.

    training: whether it is one of the training
    batch_statistics: whether BatchNormalization uses the batch's statistics, or the running ones
    device: where new tensors belong
    batch_norm: what computes BatchNormalization; several processes that share a batch have one of their own
    """

    training: bool
    batch_statistics: bool
    device: Any
    batch_norm: Function = F.batch_norm


@cache
def operators() -> Table[Operator]:
    """Every operator of every module in this folder, by (domain, operator)."""
    return read_table(__name__, __path__, "OPERATORS")


def find_operator(node: onnx.NodeProto) -> Operator | None:
    """The entry of a node's operator, if there is one."""
    return find_row(operators(), node.domain, node.op_type)


def refuse(site: Site, why: str) -> UsageError:
    """The error for a node of a known operator that torch cannot do here."""
    name = site.node.name or next(iter(site.node.output), "")
    return UsageError(
        f"operator {site.node.op_type} {why}, which has no entry in torch", where=f"node '{name}'", fix=FIX
    )


def plain(function: Function) -> Callable[[Site], Function]:
    """The builder of an operator without attributes."""
    return lambda site: function
