"""Another head for a cut model, fitted to what the original says."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from ..passes.algebra.normal_equations import NormalEquations, choose_ridge
from ..passes.channels.affine import affine_consumers, write_refit
from ..passes.channels.labels import LabelledGraph
from ..passes.graph.export import to_model
from ..passes.graph.model import Graph
from ..passes.rewrite.replace_head import find_head, linear_start, replace_head
from ..passes.rewrite.taps import find_taps
from .analysis import Analysis, analyse
from .data.sources import Batch
from .measure.calibrate import Calibration, iterate_rows


def fit_head(
    original: LabelledGraph, model: onnx.ModelProto, data: Iterable[Batch] | None, settings: Calibration
) -> tuple[onnx.ModelProto, Analysis]:
    """The model with global average pooling and one linear layer for its fully connected ones, and what it is now.

    model: the original after a cut. With data the layer is the least-squares fit, with intercept, of the original's
    logits on the model's pooled maps, its ridge chosen on every other batch; without, `linear_start`. Raises UsageError
    where there is no such head.
    """
    analysis = analyse(model, device=settings.device)
    head = find_head(analysis.groups.labelled)
    channels = analysis.groups.labelled.facts.shapes[head.maps][1]
    graph, name = replace_head(analysis.graph, head, linear_start(head, channels))
    if data is not None:
        _fit(original, graph, name, data, settings)
    changed = to_model(graph)
    return changed, analyse(changed, device=settings.device)


def _fit(original: LabelledGraph, graph: Graph, name: str, data: Iterable[Batch], settings: Calibration) -> None:
    """Refit the layer that makes `name` in place."""
    old = find_head(original)
    targets = find_taps(original).outputs({old.layers[-1]: old.logits})
    labelled = analyse(to_model(graph), device=settings.device).groups.labelled
    taps = find_taps(labelled).only([name])
    rows = zip(
        iterate_rows(labelled.graph.source, taps, data, settings),
        iterate_rows(original.graph.source, targets, data, settings),
        strict=True,
    )
    pairs = [(X, Y) for (X,), (Y,) in rows]
    channels, classes = pairs[0][0].shape[1], pairs[0][1].shape[1]
    fitted, held_out = (NormalEquations(channels, classes) for _ in range(2))
    for number, (X, Y) in enumerate(pairs):
        (held_out if number % 2 else fitted).add(X, Y)
    W = np.zeros((classes, channels, 1))
    ridge = choose_ridge(fitted, held_out, W) if held_out.rows else 1e-3
    layer = next(consumer for consumer in affine_consumers(labelled) if consumer.name == name)
    write_refit(graph, layer, (fitted + held_out).solve(W, ridge))
