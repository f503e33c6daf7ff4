"""Run a network piece by piece: activations of one place are kept, and the next piece starts from there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from ..passes.instrument import Positions, Taps, instrument
from ..passes.model import Graph, quiet
from .calibrate import Calibration, to_rows
from .session import open_session
from .sources import Batch

Array = np.ndarray
_LIMIT = 4 << 30  # bytes of activations that are kept; a place with more is not stopped at


class Frontier:
    """A place in the graph, the nodes in front of which are done, with what they leave for the others, batch by batch.

    graph: whose nodes behind the place may still be changed. The place moves on where all that is alive there has the
    images as its first axis and is small enough; else the next piece starts at the old place.
    """

    def __init__(self, graph: Graph, data: Iterable[Batch]) -> None:
        self.graph = graph
        self._batches = [dict(batch.feeds) for batch in data]
        self._counts = [len(next(iter(feeds.values()))) for feeds in self._batches]
        self._done = 0

    @property
    def samples(self) -> int:
        return sum(self._counts)

    def rows(self, consumer: str, taps: Taps, how: Calibration) -> Iterator[tuple[Array, ...]]:
        """Tap by tap the sampled patches in front of the node that makes `consumer`, and move the place there."""
        nodes = self.graph.gs.nodes
        end = next(i for i, node in enumerate(nodes) if node.outputs and node.outputs[0].name == consumer)
        alive = self._alive(end)
        made = [name for name in alive if not self._has(name)]
        added = instrument(taps, self.graph.opset)
        model = self._piece(made, taps)
        session = open_session(model, device=how.device, threads=how.threads, additions=added.additions)
        positions = Positions(how.seed, how.positions)
        outputs = [value.name for value in added.additions.graph.output]
        following: list[dict[str, Array]] = []
        for feeds, count in zip(self._batches, self._counts, strict=True):
            known = {name: feeds[name] for name in session.inputs if name in feeds}
            drawn = added.draw(count, positions)
            found = session.run({**known, **drawn.feeds}, [*outputs, *made])
            following.append({name: found[name] if name in found else feeds[name] for name in alive})
            yield tuple(to_rows(patch) for patch in added.patches(found, drawn))
        if self._movable(following):
            self._batches, self._done = following, end

    def _has(self, name: str) -> bool:
        return name in self._batches[0]

    def _alive(self, end: int) -> list[str]:
        """What the nodes from `end` on read of what is made before, in order."""
        made = {t.name for node in self.graph.gs.nodes[:end] if node.op != "Constant" for t in node.outputs}
        made |= set(self._batches[0])
        read = [t.name for node in self.graph.gs.nodes[end:] for t in node.inputs]
        return [name for name in dict.fromkeys(read) if name in made]

    def _movable(self, following: list[dict[str, Array]]) -> bool:
        size = sum(array.nbytes for feeds in following for array in feeds.values())
        return size <= _LIMIT and all(
            array.ndim > 0 and len(array) == count
            for feeds, count in zip(following, self._counts, strict=True)
            for array in feeds.values()
        )

    def _piece(self, outputs: list[str], taps: Taps) -> onnx.ModelProto:
        """The nodes behind the place that the outputs and taps need, as a model of its own."""
        makers = {t.name: node for node in self.graph.gs.nodes for t in node.outputs}
        needed: set[int] = set()
        inputs: dict[str, None] = {}
        constants: dict[str, gs.Constant] = {}
        waiting = [*outputs, *(tap.tensor for tap in taps)]
        while waiting:
            name = waiting.pop()
            if self._has(name):
                inputs[name] = None
            elif name in makers and id(makers[name]) not in needed:
                needed.add(id(makers[name]))
                for tensor in makers[name].inputs:
                    if isinstance(tensor, gs.Constant):
                        constants[tensor.name] = tensor
                    elif tensor.name:
                        waiting.append(tensor.name)
        first = self._batches[0]
        with quiet():
            graph = helper.make_graph(
                [OnnxExporter.export_node(n) for n in self.graph.gs.nodes if id(n) in needed],
                "piece",
                [_info(name, first[name]) for name in inputs],
                [helper.make_empty_tensor_value_info(name) for name in outputs],
                [OnnxExporter.export_tensor_proto(tensor) for tensor in constants.values()],
            )
        source = self.graph.source
        return helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    shape = [None, *array.shape[1:]]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)
