"""Weights that the graph computes from constants, computed once by ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

from ..passes.errors import ReadError
from ..passes.graph.folding import computation, computed_weights, with_values
from ..passes.graph.model import Graph, load
from .session import Device, open_session


def fold_weights(graph: Graph, *, device: Device = "auto") -> Graph:
    """The graph with computed weights as initializers; itself where it has none, or they cannot be computed."""
    names = computed_weights(graph.source.graph)
    if not names:
        return graph
    try:
        values = open_session(computation(graph.source, names), device=device, optimise=False).run({})
    except ReadError:
        return graph
    return replace(load(with_values(graph.source, values)), external=graph.external, origin=graph.origin)
