"""What latency is measured on: so many samples in a run, smaller ones where a run at full size is heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...passes.errors import UsageError
from ...passes.graph.model import load
from ...passes.graph.shapes import input_shapes, tensor_facts
from ..analysis import Analysis
from ..reduced import fitted

Feeds = Mapping[str, np.ndarray]


def of_batch(analysis: Analysis, batch: int = 1) -> Analysis:
    """The analysis as latency looks at it: its feeds are `timed_feeds`, its shapes those of a run on them."""
    feeds = timed_feeds(analysis, batch)
    if feeds is analysis.feeds:
        return analysis
    graph = load(fitted(analysis.graph.source, feeds))
    facts = tensor_facts(graph, {name: array.shape for name, array in feeds.items()})
    groups = replace(analysis.groups, labelled=replace(analysis.groups.labelled, facts=facts))
    return replace(analysis, graph=replace(analysis.graph, source=graph.source), groups=groups, feeds=feeds)


def timed_feeds(analysis: Analysis, batch: int = 1) -> Feeds:
    """`analysis.trial`, repeated along the first axis of every input that leaves it open.

    Raises UsageError as `check_batch`.
    """
    if batch == 1:
        return analysis.trial
    declared = input_shapes(analysis.graph)
    open_ones = {name for name, dims in declared.items() if dims and not (isinstance(dims[0], int) and dims[0] > 0)}
    repeated = {
        name: np.repeat(array, batch, axis=0) if name in open_ones and array.shape[:1] == (1,) else array
        for name, array in analysis.trial.items()
    }
    check_batch(repeated, batch)
    unchanged = all(repeated[name] is array for name, array in analysis.trial.items())
    return analysis.trial if unchanged else repeated


def check_batch(feeds: Feeds, batch: int) -> None:
    """Raises UsageError where so many samples are asked for in a run, and no input of the model takes them."""
    if batch > 1 and not any(array.shape[:1] == (batch,) for array in feeds.values()):
        sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        raise UsageError(
            "the model does not leave open how many samples it takes",
            where=f"a batch of {batch}; it reads {sizes or 'no input'}",
            fix="leave the batch out, or export the model with a free batch",
        )
