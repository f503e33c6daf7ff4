"""What is the same in every run is computed once: weights from constants, and which branch is taken."""

from __future__ import annotations

import math
from dataclasses import replace

from ..passes.errors import BoundError, ReadError
from ..passes.graph.folding import computation, computed_weights, stored_sources, with_values
from ..passes.graph.inference import inferred
from ..passes.graph.model import Graph, load
from ..passes.graph.shapes import Facts, static_shape
from ..passes.graph.spill import without_weights
from ..passes.graph.unrolling import unrolled
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


def with_known_branches(graph: Graph, facts: Facts) -> Graph:
    """The graph with each If written out whose condition follows from sizes, where the inputs have no free ones."""
    conditions = {node.inputs[0].name for node in graph.gs.nodes if node.op == "If"}
    known = {name: facts.values[name] for name in sorted(conditions) if name in facts.values}
    if facts.dynamic or not known:
        return graph
    model = unrolled(graph.source, known)
    if model is graph.source:
        return graph
    return replace(
        load(model), external=graph.external, origin=graph.origin, computed=graph.computed, nested=graph.nested
    )
