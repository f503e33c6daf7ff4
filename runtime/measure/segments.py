"""Run a network piece by piece: activations of one place are kept, and the next piece starts from there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from ...passes.graph.bodies import captured_names
from ...passes.graph.model import Graph, quiet
from ...passes.rewrite.taps import Positions, Taps, instrument
from ..data.random_feeds import Feeds
from ..data.sources import Batch
from ..session import Device, Session, open_session
from .calibrate import Calibration, to_rows

Array = np.ndarray
_LIMIT = 4 << 30  # bytes of activations that are kept; a place with more is not stopped at


class Frontier:
    """A place in the graph, the nodes in front of which are done, with what they leave for the others, batch by batch.

    graph: whose nodes behind the place may still be changed. The place moves on where all that is alive there has the
    images as its first axis and is small enough; else the next piece starts at the old place.
    """

    def __init__(
        self, graph: Graph, data: Iterable[Batch], *, device: Device = "auto", threads: int | None = None
    ) -> None:
        self.graph = graph
        self._where = {"device": device, "threads": threads}
        self._batches = [dict(batch.feeds) for batch in data]
        self.counts = [len(next(iter(feeds.values()))) for feeds in self._batches]

    @property
    def samples(self) -> int:
        return sum(self.counts)

    def rows(self, consumer: str, taps: Taps, how: Calibration) -> Iterator[tuple[Array, ...]]:
        """Tap by tap the sampled patches in front of the node that makes `consumer`, and move the place there."""
        alive = self._alive(self._number(consumer))
        made = [name for name in alive if not self._has(name)]
        added = instrument(taps, self.graph.opset)
        model = self._piece(self.graph, made, [tap.tensor for tap in taps])
        session = open_session(model, additions=added.additions, **self._where)
        positions = Positions(how.seed, how.positions)
        outputs = [value.name for value in added.additions.graph.output]
        following: list[dict[str, Array]] = []
        for feeds, count in zip(self._batches, self.counts, strict=True):
            drawn = added.draw(count, positions)
            found = session.run({**_known(session, feeds), **drawn.feeds}, [*outputs, *made])
            following.append({name: found[name] if name in found else feeds[name] for name in alive})
            yield tuple(to_rows(patch) for patch in added.patches(found, drawn))
        self._move(following)

    def advance(self, consumer: str) -> None:
        """Move the place in front of the node that makes the tensor `consumer`."""
        alive = self._alive(self._number(consumer))
        made = [name for name in alive if not self._has(name)]
        if made:
            following = [{**feeds, **found} for feeds, found in zip(self._batches, self._run(made), strict=True)]
            self._move([{name: feeds[name] for name in alive} for feeds in following])

    def outputs(self, graph: Graph | None = None) -> Iterator[Feeds]:
        """Batch by batch the outputs of the graph, or of another that differs from it behind the place alone."""
        return self._run([t.name for t in self.graph.gs.outputs], graph)

    def _run(self, names: list[str], graph: Graph | None = None) -> Iterator[Feeds]:
        made = [name for name in names if not self._has(name)]
        session = open_session(self._piece(graph or self.graph, made), **self._where)
        for feeds in self._batches:
            found = session.run(_known(session, feeds), made)
            yield {name: found[name] if name in found else feeds[name] for name in names}

    def _number(self, consumer: str) -> int:
        nodes = self.graph.gs.nodes
        return next(i for i, node in enumerate(nodes) if node.outputs and node.outputs[0].name == consumer)

    def _has(self, name: str) -> bool:
        return name in self._batches[0]

    def _alive(self, end: int) -> list[str]:
        """What the nodes from `end` on, and the outputs, read of what is made before, in order."""
        nodes = self.graph.gs.nodes
        made = {t.name for node in nodes[:end] if node.op != "Constant" for t in node.outputs}
        made |= set(self._batches[0])
        read = [name for node in nodes[end:] for name in _read(node)] + [t.name for t in self.graph.gs.outputs]
        return [name for name in dict.fromkeys(read) if name in made]

    def _move(self, following: list[dict[str, Array]]) -> None:
        """To where these are alive, if they can be kept."""
        size = sum(array.nbytes for feeds in following for array in feeds.values())
        if size <= _LIMIT and all(
            array.ndim > 0 and len(array) == count
            for feeds, count in zip(following, self.counts, strict=True)
            for array in feeds.values()
        ):
            self._batches = following

    def _piece(self, graph: Graph, outputs: list[str], taken: Sequence[str] = ()) -> onnx.ModelProto:
        """The nodes of `graph` behind the place that the outputs and taken tensors need, as a model of its own."""
        makers = {t.name: node for node in graph.gs.nodes for t in node.outputs}
        tensors = graph.gs.tensors()
        needed: set[int] = set()
        inputs: dict[str, None] = {}
        constants: dict[str, gs.Constant] = {}
        waiting = [*outputs, *taken]
        while waiting:
            name = waiting.pop()
            if self._has(name):
                inputs[name] = None
            elif name in makers and id(makers[name]) not in needed:
                needed.add(id(makers[name]))
                waiting += _read(makers[name])
            elif isinstance(constant := tensors.get(name), gs.Constant):
                constants[name] = constant
        first = self._batches[0]
        with quiet():
            proto = helper.make_graph(
                [OnnxExporter.export_node(n) for n in graph.gs.nodes if id(n) in needed],
                "piece",
                [_info(name, first[name]) for name in inputs],
                [helper.make_empty_tensor_value_info(name) for name in outputs],
                [OnnxExporter.export_tensor_proto(tensor) for tensor in constants.values()],
            )
        source = graph.source
        return helper.make_model(proto, opset_imports=source.opset_import, ir_version=source.ir_version)


def _read(node: gs.Node) -> list[str]:
    return [t.name for t in node.inputs if t.name] + sorted(captured_names(node))


def _known(session: Session, feeds: Feeds) -> Feeds:
    return {name: feeds[name] for name in session.inputs if name in feeds}


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    shape = [None, *array.shape[1:]]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)
