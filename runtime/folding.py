"""Weights that the graph computes from constants, computed once by ONNX Runtime."""

from __future__ import annotations

import math
from dataclasses import replace

from ..passes.errors import BoundError, ReadError
from ..passes.graph.folding import computation, computed_weights, stored_sources, with_values
from ..passes.graph.inference import inferred
from ..passes.graph.model import Graph, load
from ..passes.graph.shapes import static_shape
from ..passes.graph.spill import without_weights
from .device import Device
from .session import open_session

_MOST = 1 << 28  # elements of a tensor: larger weights are not computed from smaller ones


def fold_weights(graph: Graph, *, device: Device = "auto") -> Graph:
    """The graph with computed weights as initializers; itself where it has none, or they cannot be computed."""
    names = computed_weights(graph.source.graph)
    if not names:
        return graph
    asked = computation(graph.source, names)
    shapes = [static_shape(value.type) for value in inferred(without_weights(asked), data_prop=True).graph.value_info]
    if any(math.prod(shape) > _MOST for shape in shapes if shape):
        return graph
    try:
        values = open_session(asked, device=device, optimise=False).run({})
    except BoundError:
        raise
    except ReadError:
        return graph
    folded = load(with_values(graph.source, values))
    sources = stored_sources(graph.source.graph, names)
    return replace(folded, external=graph.external, origin=graph.origin, computed=sources)
