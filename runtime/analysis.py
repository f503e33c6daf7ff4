"""Reading a model: its channel groups, its cost, and input on which it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..passes.channels.cost import CostModel, cost_model
from ..passes.channels.groups import ChannelGroups, channel_groups
from ..passes.channels.label_channels import label_channels
from ..passes.errors import BoundError, ReadError, UsageError
from ..passes.graph.bodies import check_loops
from ..passes.graph.model import Graph, ModelLike, constant_values, load
from ..passes.graph.shapes import Facts, input_shapes, sizes_fit, tensor_facts
from .data.random_feeds import Feeds, is_drawable, runnable_feeds, sample_feeds
from .device import Device
from .figures import count, shortened, shortened_inside
from .folding import fold_weights, with_known_branches
from .html import table
from .shapes import Shape, tensor_shapes
from .soundness import check_fits, check_nodes, knows_all_operators

_SHOWS_NOTHING = "reads or makes no finite numbers that vary, on any input that was tried"


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was read of a model before anything is decided.

    name: of the file, or of the graph
    graph: what was read
    groups, cost: its channels, and what they cost
    feeds: input of the sizes that it was read for
    trial: input on which it is proved and timed: the same, or smaller where that is heavy
    """

    name: str
    graph: Graph
    groups: ChannelGroups
    cost: CostModel
    feeds: Mapping[str, np.ndarray]
    trial: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        return f"Analysis({self.name!r}, {self.cost!r})"

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The sizes of the inputs that it was read for."""
        return {name: tuple(array.shape) for name, array in self.feeds.items()}

    @property
    def tried(self) -> dict[str, tuple[int, ...]]:
        """The sizes of the inputs that it is proved and timed on."""
        return {name: tuple(array.shape) for name, array in self.trial.items()}

    @property
    def free(self) -> tuple[str, ...]:
        """The inputs of which the model leaves more sizes open than the batch."""
        declared = input_shapes(self.graph)
        return tuple(name for name, dims in declared.items() if any(not _fixed(dim) for dim in dims[1:]))

    def _repr_html_(self) -> str:
        whole = self.cost.macs(self.cost.units)
        groups = self.groups.groups
        rows = [
            (shortened(g.name), str(g.units), "" if g.pinned else self.saving(index), shortened_inside(g.pinned or ""))
            for index, g in enumerate(groups)
        ]
        heading = f"{self.name}: {count(whole)} MACs, {count(self.cost.params(self.cost.units))} parameters"
        return table(heading, ("group", "units", "MACs a unit", "pinned because"), rows)

    def saving(self, group: int) -> str:
        """MACs that one unit of that group costs, in words."""
        units = self.cost.units
        return count(self.cost.macs(units) - self.cost.macs(units - (np.arange(len(units)) == group)))


def analyse(
    model: ModelLike,
    *,
    device: Device = "auto",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    example: Feeds | None = None,
    inexact: bool = False,
) -> Analysis:
    """Label the channels of a model and group them. Runs it only where shapes cannot be inferred.

    sizes: values of the inputs' free dimensions by name; example: input of the sizes to read the model for;
    inexact: normalisation layers lose channels too, and normalise by what is left. Raises ReadError where it is no
    model that can be read.
    """
    graph = load(model)
    check_nodes(graph, device)
    _check_sizes(graph, sizes)
    graph = fold_weights(graph, device=device)
    feeds, facts = _feeds(graph, device, seed, sizes) if example is None else (example, None)
    shapes = {name: tuple(array.shape) for name, array in feeds.items()}
    facts = facts or tensor_facts(graph, shapes)
    check_loops(graph.source.graph, facts.values)
    shown = _shown_by_run(graph, feeds, device) if facts.unknown else None
    if facts.unknown and shown is None and (other := _others(graph, device, seed, sizes)):
        feeds, shapes = other, {name: tuple(array.shape) for name, array in other.items()}
        shown = _shown_by_run(graph, feeds, device)
    if shown is not None:  # what stays unknown is pinned with that reason
        facts = tensor_facts(graph, shapes, shown=shown)
    settled = with_known_branches(graph, facts)
    if settled is not graph:
        graph, facts = settled, tensor_facts(settled, shapes, shown=shown)
    labelled = label_channels(graph, facts, inexact=inexact)
    check_fits(labelled, feeds, device)
    groups = channel_groups(labelled)
    name = Path(model).name if isinstance(model, str | os.PathLike) else graph.source.graph.name
    cost = cost_model(groups)
    return Analysis(name, graph, groups, cost, feeds, feeds)


def _shown_by_run(graph: Graph, feeds: Mapping[str, np.ndarray], device: Device) -> dict[str, Shape] | None:
    """The sizes that a run shows; None where the model does not run."""
    try:
        return tensor_shapes(graph.source, feeds, device=device)
    except BoundError:
        raise
    except ReadError:
        return None


def _others(graph: Graph, device: Device, seed: int, sizes: Mapping[str, int] | None) -> Feeds | None:
    """Input of other sizes on which the model runs; None where none is found."""
    try:
        return runnable_feeds(graph.source, seed=seed, sizes=sizes, device=device)
    except BoundError:
        raise
    except ReadError:
        return None


def least_leading(graph: Graph, device: Device = "auto", seed: int = 0) -> int:
    """How many entries a free first axis needs so that the model runs: 1 for a batch, more for frames or clips."""
    if not _may_be_no_batch(graph):
        return 1
    found = _others(graph, device, seed, None) or {}
    free = [name for name, dims in input_shapes(graph).items() if dims and not _fixed(dims[0])]
    return max((found[name].shape[0] for name in free if name in found), default=1)


def with_pins(analysis: Analysis, blind: Mapping[str, str]) -> Analysis:
    """The same, with these groups pinned. blind: their names, each with a node that shows nothing of it."""
    groups = tuple(
        replace(group, pinned=f"nothing shows whether a cut of it is right: {blind[group.name]} {_SHOWS_NOTHING}")
        if group.name in blind
        else group
        for group in analysis.groups.groups
    )
    pinned = replace(analysis.groups, groups=groups)
    return replace(analysis, groups=pinned, cost=cost_model(pinned))


def _feeds(
    graph: Graph, device: Device, seed: int, sizes: Mapping[str, int] | None
) -> tuple[Mapping[str, np.ndarray], Facts | None]:
    """Random input for one run, and the facts for it where they were asked for.

    A model whose first axis alone is free is not run to find out where it reads images, or where sizes say it.
    """
    shapes = input_shapes(graph)
    if not is_drawable(graph.source.graph):  # channels are shown without a run
        return sample_feeds(graph.source, seed=seed, batch=1, sizes=sizes, some=True), None
    if any(not _fixed(dim) for dims in shapes.values() for dim in dims[1:]):
        return _found_by_runs(graph, device, seed, sizes), None
    one = sample_feeds(graph.source, seed=seed, batch=1, sizes=sizes)
    if not _may_be_no_batch(graph):
        return one, None
    if all(len(dims) > 1 for dims in shapes.values()):
        facts = tensor_facts(graph, {name: tuple(array.shape) for name, array in one.items()})
        if sizes_fit(graph, facts):
            return one, facts
    return _found_by_runs(graph, device, seed, sizes), None


def _found_by_runs(
    graph: Graph, device: Device, seed: int, sizes: Mapping[str, int] | None
) -> Mapping[str, np.ndarray]:
    try:
        return runnable_feeds(graph.source, seed=seed, sizes=sizes, device=device)
    except ReadError:
        if knows_all_operators(graph):
            raise
        return sample_feeds(graph.source, seed=seed, batch=1, sizes=sizes)


def _fixed(dim: object) -> bool:
    return isinstance(dim, int) and dim > 0


def _check_sizes(graph: Graph, sizes: Mapping[str, int] | None) -> None:
    """Raise UsageError for a size of no dimension."""
    free = {dim for dims in input_shapes(graph).values() for dim in dims if isinstance(dim, str) and dim}
    for name, size in (sizes or {}).items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UsageError(
                f"{size!r} is not a size of '{name}'", where="--size-of", fix="give a whole number from 1 on"
            )
        if name not in free:
            raise UsageError(
                f"no input of the model has a free dimension '{name}'",
                where="--size-of",
                fix=f"name one of {', '.join(sorted(free))}" if free else "leave it out: the model fixes its sizes",
            )


def _may_be_no_batch(graph: Graph) -> bool:
    """Whether a free first axis may be frames or clips: no images are read, or a Reshape has sizes written in."""
    shapes = input_shapes(graph)
    if all(dims and isinstance(dims[0], int) and dims[0] > 0 for dims in shapes.values()):
        return False
    targets = [
        constant_values(node.inputs[1]) for node in graph.gs.nodes if node.op == "Reshape" and len(node.inputs) > 1
    ]
    written = any(t is not None and t.size and (t.flat[0] > 1 or (t.size > 2 and t.flat[0] < 0)) for t in targets)
    return written or any(len(dims) != 4 for dims in shapes.values())
