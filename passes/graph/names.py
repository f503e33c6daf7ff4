"""Names that nothing in a model has yet, for what a pass puts into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import onnx_graphsurgeon as gs


class Names:
    """The names that are taken; whoever puts something into a graph asks here for a free one, which is taken then."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def fresh(self, stem: str) -> str:
        """The stem itself where it is free, else stem_2, stem_3, ..."""
        return stem if self._take(stem) else self._numbered(stem, 2)

    def numbered(self, stem: str) -> str:
        """The first free of stem_1, stem_2, ...: for one more of something whose name is the stem."""
        return self._numbered(stem, 1)

    def _numbered(self, stem: str, start: int) -> str:
        return next(name for number in count(start) if self._take(name := f"{stem}_{number}"))

    def _take(self, name: str) -> bool:
        if name in self._taken:
            return False
        self._taken.add(name)
        return True


def tensor_names(graph: gs.Graph) -> Iterator[str]:
    """Of a graph and of the bodies in it."""
    yield from graph.tensors()
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from tensor_names(value)


def modules(names: Iterable[str]) -> set[str]:
    """What stands in front of the dots of dotted names: "a" and "a.b" of "a.b.c"."""
    return {name[:end] for name in names for end, letter in enumerate(name) if letter == "."}
