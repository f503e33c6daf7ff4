"""Functions of a model put in the place of their calls, as long as that is within measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx

from ...errors import ReadError

_NODES, _BYTES = (
    1 << 20,
    1 << 31,
)  # that calls may come to: each function calls the one before twice, and 2^40 nodes are due
_FIX = "export the model without functions; onnx.checker.check_model says what else is wrong with the file"
_Name = tuple[str, str]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions.

    Raises ReadError where one calls itself or stands there twice, or where they grow beyond measure.
    """
    import onnx.inliner

    where = model.graph.name or "the model"
    nodes, size = _Sizes(model, where).of(model.graph.node)
    if nodes > _NODES or size > _BYTES:
        raise ReadError(
            "the functions of the model call one another beyond measure",
            where=f"{where}: {nodes} nodes, {size >> 20} MiB",
            fix=_FIX,
        )
    try:
        return onnx.inliner.inline_local_functions(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ReadError("the functions of the model are malformed", where=f"{where}: {error}", fix=_FIX) from error


@dataclass
class _Sizes:
    """Nodes and bytes that calls of a model's functions come to; each function is looked at once."""

    model: onnx.ModelProto
    where: str
    known: dict[_Name, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bodies = {(f.domain, f.name): f for f in self.model.functions}
        begun: set[_Name] = set()
        pending = [*bodies]
        while pending:  # depth first, without recursion: a chain may have thousands of functions
            name = pending[-1]
            missing = [n for n in dict.fromkeys(_calls(bodies[name].node)) if n in bodies and n not in self.known]
            if missing and name in begun:
                raise ReadError("a function of the model calls itself", where=f"{self.where}: {name[1]}", fix=_FIX)
            begun.add(name)
            if missing:
                pending += missing
            else:
                self.known[pending.pop()] = self.of(bodies[name].node)

    def of(self, nodes: Iterable[onnx.NodeProto]) -> tuple[int, int]:
        """Of these nodes, with all that they call."""
        held = list(nodes)
        called = [self.known[name] for name in _calls(held) if name in self.known]
        return len(held) + sum(n for n, _ in called), sum(n.ByteSize() for n in held) + sum(size for _, size in called)


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Name]:
    """Domains and operators of nodes, and of those in their bodies."""
    for node in nodes:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _calls(body.node)
