"""Run a network piece by piece: activations of one place are kept, and the next piece starts from there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from ...passes.graph.bodies import captured_names
from ...passes.graph.model import Graph, quiet
from ...passes.rewrite.taps import Draw, Positions, Taps, instrument
from ..data.random_feeds import Feeds
from ..data.sources import Batch
from ..device import Device
from ..session import Session, open_session
from .ahead import side_by_side, threads_each, workers
from .calibrate import Calibration, to_rows
from .shelf import Held, Shelf

Array = np.ndarray
LIMIT = 96 << 20  # bytes of activations that are kept in memory; more go into files
_PLACE_LIMIT = 16 << 30  # bytes of activations at a place; one with more is not stopped at


def number_of(graph: Graph, tensor: str) -> int:
    """Of the node that makes a tensor; the number changes where a refit puts a node in front of it."""
    return next(i for i, n in enumerate(graph.gs.nodes) if any(t.name == tensor for t in n.outputs))


class Frontier:
    """A place in the graph, the nodes in front of which are done, with what they leave for the others, batch by batch.

    graph: whose nodes after the place may still be changed. The place moves on where all that is alive there has the
    samples as its first axis and is small enough; else the next piece starts at the old place. A context, at whose end
    what is kept goes.
    """

    def __init__(
        self,
        graph: Graph,
        data: Iterable[Batch],
        *,
        device: Device = "auto",
        threads: int | None = None,
        shelf: Shelf | None = None,
        done: int = 0,
    ) -> None:
        """shelf: one that it shares with others, who close it; done: how many samples came before."""
        self.graph = graph
        self._where = {"device": device, "threads": threads_each(device) if threads is None else threads}
        self._workers = workers(device)
        self._shelf = Shelf(LIMIT) if shelf is None else shelf
        self._done = done
        self._kept: list[dict[str, Held]] = []
        self.counts: list[int] = []
        for batch in data:
            self._kept.append({name: self._shelf.put(array) for name, array in batch.feeds.items()})
            self.counts.append(batch.size)
        self._kinds = self._described()

    def __enter__(self) -> Frontier:
        return self

    def __exit__(self, *error: object) -> None:
        self._shelf.close()

    @property
    def tensors(self) -> list[str]:
        """The names of what is kept at the place."""
        return list(self._kinds)

    @property
    def samples(self) -> int:
        return sum(self.counts)

    def rows(self, end: int, taps: Taps, settings: Calibration) -> Iterator[tuple[Array, ...]]:
        """Tap by tap the sampled patches, and move the place in front of node `end`.

        The patches may be those of tensors behind it.
        """
        alive = self._alive(end)
        made = [name for name in alive if not self._has(name)]
        added = instrument(taps, self.graph.opset)
        model = self._piece(self.graph, made, [tap.tensor for tap in taps])
        session = open_session(model, additions=added.additions, **self._where)
        positions = Positions(settings.seed + self._done, settings.positions)
        outputs = [value.name for value in added.additions.graph.output]
        moves = True

        def run(item: tuple[int, Draw]) -> tuple[int, Draw, Feeds]:
            number, drawn = item
            return *item, session.run({**self._feeds(session, number), **drawn.feeds}, [*outputs, *made])

        before = np.cumsum([self._done, *self.counts]).tolist()
        draws = ((number, added.draw(count, positions, before[number])) for number, count in enumerate(self.counts))
        for number, drawn, found in side_by_side(run, draws, self._workers):
            count = self.counts[number]
            moves = moves and self._fits({name: found[name] for name in made}, count)
            if moves:
                self._put(number, {name: found[name] for name in made})
            yield tuple(to_rows(patch) for patch in added.patches(found, drawn))
        self._settle(alive, made, moves=moves)

    def advance(self, end: int) -> None:
        """Move the place in front of node `end`."""
        alive = self._alive(end)
        made = [name for name in alive if not self._has(name)]
        moves = True
        for number, found in enumerate(self._run(made) if made else ()):
            moves = moves and self._fits(found, self.counts[number])
            if moves:
                self._put(number, found)
        self._settle(alive, made, moves=moves)

    def outputs(self, graph: Graph | None = None) -> Iterator[Feeds]:
        """Batch by batch the outputs of the graph, or of another that differs from it after the place alone."""
        names = [t.name for t in self.graph.gs.outputs]
        made = [name for name in names if not self._has(name)]
        for number, found in enumerate(self._run(made, graph)):
            kept = {name: self._shelf.get(self._kept[number][name]) for name in names if self._has(name)}
            yield {name: found[name] if name in found else kept[name] for name in names}

    def reach(self, tensor: str) -> bool:
        """Move the place behind the node that makes this tensor; whether its values are kept there."""
        if not self._has(tensor):
            self.advance(self.number(tensor) + 1)
        return self._has(tensor)

    def piece(self, output: str, dtype: np.dtype) -> onnx.ModelProto:
        """The nodes from the place to that tensor, of this type, as a model; it reads what is kept at the place."""
        model = self._piece(self.graph, [output])
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info(output, helper.np_dtype_to_tensor_dtype(dtype), None)
        )
        return model

    def array(self, tensor: str, samples: int) -> Array:
        """Its values for the first so many samples, where they are kept at the place."""
        parts, count = [], 0
        for kept, size in zip(self._kept, self.counts, strict=True):
            if count < samples:
                parts.append(self._shelf.get(kept[tensor])[: samples - count])
                count += size
        return np.concatenate(parts)

    def bytes_of(self, tensors: Iterable[str]) -> float:
        """What a sample of these tensors takes, where they are kept at the place."""
        return sum(self._shelf.get(self._kept[0][name]).nbytes for name in tensors) / max(self.counts[0], 1)

    def number(self, tensor: str) -> int:
        """See `number_of`."""
        return number_of(self.graph, tensor)

    def _run(self, made: list[str], graph: Graph | None = None) -> Iterator[Feeds]:
        session = open_session(self._piece(graph or self.graph, made), **self._where)
        numbers = range(len(self.counts))
        yield from side_by_side(lambda number: session.run(self._feeds(session, number), made), numbers, self._workers)

    def _has(self, name: str) -> bool:
        return name in self._kinds

    def _alive(self, end: int) -> list[str]:
        """What the nodes from `end` on, and the outputs, read of what is made before, in order."""
        nodes = self.graph.gs.nodes
        made = {t.name for node in nodes[:end] if node.op != "Constant" for t in node.outputs}
        made |= self._kinds.keys()
        read = [name for node in nodes[end:] for name in _read(node)] + [t.name for t in self.graph.gs.outputs]
        return [name for name in dict.fromkeys(read) if name in made]

    def _feeds(self, session: Session, number: int) -> Feeds:
        kept = self._kept[number]
        return {name: self._shelf.get(kept[name]) for name in session.inputs if name in kept}

    def _fits(self, made: Feeds, count: int) -> bool:
        size = sum(array.nbytes for array in made.values()) * len(self.counts)
        return size <= _PLACE_LIMIT and all(array.ndim > 0 and len(array) == count for array in made.values())

    def _put(self, number: int, made: Feeds) -> None:
        self._kept[number].update({name: self._shelf.put(array) for name, array in made.items()})

    def _settle(self, alive: list[str], made: list[str], *, moves: bool) -> None:
        """Let go of what is not alive at the new place, or of what was made where it cannot be moved to."""
        for kept in self._kept:
            for name in kept.keys() - set(alive) if moves else kept.keys() & set(made):
                self._shelf.drop(kept.pop(name))
        self._kinds = self._described()

    def _described(self) -> dict[str, onnx.ValueInfoProto]:
        """The tensors that are kept, as inputs of a piece."""
        first = {name: self._shelf.get(held) for name, held in self._kept[0].items()} if self._kept else {}
        return {name: _info(name, array) for name, array in first.items()}

    def _piece(self, graph: Graph, outputs: list[str], taken: Sequence[str] = ()) -> onnx.ModelProto:
        """The nodes of `graph` after the place that the outputs and taken tensors need, as a model of its own."""
        makers = {t.name: node for node in graph.gs.nodes for t in node.outputs}
        needed: set[int] = set()
        inputs: dict[str, None] = {}
        constants: dict[str, gs.Constant] = {}
        tensors: Mapping[str, gs.Tensor] | None = None
        waiting: list[tuple[str, gs.Tensor | None]] = [(name, None) for name in (*outputs, *taken)]
        while waiting:
            name, tensor = waiting.pop()
            if self._has(name):
                inputs[name] = None
            elif name in makers:
                node = makers[name]
                if id(node) not in needed:
                    needed.add(id(node))
                    waiting += [(t.name, t) for t in node.inputs if t.name]
                    waiting += [(captured, None) for captured in sorted(captured_names(node))]
            else:
                tensors = graph.gs.tensors() if tensor is None and tensors is None else tensors
                constant = tensor if tensor is not None or tensors is None else tensors.get(name)
                if isinstance(constant, gs.Constant):
                    constants[name] = constant
        with quiet():
            proto = helper.make_graph(
                [OnnxExporter.export_node(n) for n in graph.gs.nodes if id(n) in needed],
                "piece",
                [self._kinds[name] for name in inputs],
                [helper.make_empty_tensor_value_info(name) for name in outputs],
                [OnnxExporter.export_tensor_proto(tensor) for tensor in constants.values()],
            )
        source = graph.source
        return helper.make_model(proto, opset_imports=source.opset_import, ir_version=source.ir_version)


def _read(node: gs.Node) -> list[str]:
    return [t.name for t in node.inputs if t.name] + sorted(captured_names(node))


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    shape = [None, *array.shape[1:]]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)
