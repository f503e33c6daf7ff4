"""From units to a plan, and from a plan to the labels that go: the constants it cuts, and whether it fits a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...channels.constants import cut_names, gone
from ...channels.cost import CostModel
from ...channels.groups import ChannelGroup, ChannelGroups
from ...channels.labels import LabelledGraph
from ...channels.vanish.take_out import settled_cut
from ...errors import UsageError
from ...graph.bodies import place_of
from ...graph.model import Graph, constant_values
from ..budget import Budget
from .plan import Plan, PlannedGroup, Slices

Array = np.ndarray
_SAME_GRAPH = "apply the plan to the graph that it was made for"


def make_plan(
    cost: CostModel,
    removed: Mapping[str, tuple[int, ...]],
    budget: Budget,
    *,
    criterion: str,
    allocation: str,
    reconstruct: str = "none",
    seed: int = 0,
) -> Plan:
    """The plan that removes these units of these groups, each in ascending order."""
    groups, labelled = cost.groups, cost.groups.labelled
    kept = cost.kept(removed)
    slices = removed_slices(labelled, groups.removed_labels(removed))
    return Plan(
        model=labelled.graph.source.graph.name,
        graph_sha256=labelled.graph.sha256(),
        budget=budget,
        criterion=criterion,
        allocation=allocation,
        reconstruct=reconstruct,
        seed=seed,
        macs=(cost.macs(cost.units), cost.macs(kept)),
        params=(cost.params(cost.units), cost.params(kept)),
        groups=tuple(PlannedGroup(g.name, g.units, tuple(removed.get(g.name, ())), g.pinned) for g in groups.groups),
        slices=slices,
        computed={name: read for name, read in labelled.graph.computed.items() if name in slices},
        nested=_nested(labelled.graph, slices),
    )


def _nested(graph: Graph, slices: Slices) -> dict[str, str]:
    """Where the file keeps those constants that are not among the graph's own in it."""
    tensors = graph.gs.tensors() if graph.nested else {}
    found = {}
    for name in slices if graph.nested else ():
        values = constant_values(tensors[name]) if name in tensors else None
        place = None if values is None else place_of(graph.nested, name, values)
        if place is not None:
            found[name] = place
    return found


def recounted(plan: Plan, cost: CostModel, removed: Array) -> Plan:
    """The plan with the costs and the slices of what it removes now, which an edit may have changed.

    removed: its removed labels, of the graph that `cost` is of.
    """
    kept = cost.kept(plan.removed)
    return replace(
        plan,
        macs=(cost.macs(cost.units), cost.macs(kept)),
        params=(cost.params(cost.units), cost.params(kept)),
        slices=removed_slices(cost.groups.labelled, removed) if plan.slices is None else plan.slices,
    )


def removed_slices(labelled: LabelledGraph, removed: Array) -> Slices:
    """The removed indices of each constant of the cut model, given the removed labels (one bool a label)."""
    slices: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, name in cut_names(labelled, removed).items():
        lost = {str(axis): gone(array, removed) for axis, array in enumerate(labelled.constants[key].labels)}
        slices[name] = {axis: tuple(np.flatnonzero(mask).tolist()) for axis, mask in lost.items() if mask.any()}
    return slices


def removed_from_plan(groups: ChannelGroups, plan: Plan) -> Array:
    """The removed labels (one bool a label) of a plan. Groups that it does not mention stay whole.

    Raises UsageError where the plan is of another graph, removes what is not there, is pinned or has to keep a unit, or
    where its slices are not those of its groups.
    """
    _check_graph(groups, plan)
    by_name = {group.name: group for group in groups.groups}
    for planned in plan.groups:
        _check_group(by_name.get(planned.name), planned)
    removed = groups.removed_labels(plan.removed)
    _check_whole(groups, plan, removed)
    if plan.slices is not None:
        expected = removed_slices(groups.labelled, removed)
        wrong = [n for n in {**expected, **plan.slices} if expected.get(n) != plan.slices.get(n)]
        if wrong:
            raise UsageError(
                "the plan's slices are not those of its groups",
                where=f"constant '{wrong[0]}'",
                fix='after editing the groups delete the key "slices": it follows from them',
            )
    return removed


def _check_graph(groups: ChannelGroups, plan: Plan) -> None:
    graph = groups.labelled.graph
    if plan.graph_sha256 == graph.sha256():
        return
    units, planned = {g.name: g.units for g in groups.groups}, {g.name: g.units for g in plan.groups}
    differing = [name for name in {**planned, **units} if planned.get(name) != units.get(name)]
    detail = "the groups are the same, but not all operators, names and shapes"
    if differing:
        name = differing[0]
        detail = (
            f"group '{name}' has {planned.get(name, 'no')} units in the plan, {units.get(name, 'none')} in the model"
        )
    raise UsageError(
        f"the plan was made for another graph, '{plan.model}'",
        where=f"'{graph.source.graph.name}': {detail}",
        fix="apply it to a checkpoint of the same graph, or make a new plan",
    )


def _check_group(group: ChannelGroup | None, planned: PlannedGroup) -> None:
    if group is None or group.units != planned.units:
        has = "no such group" if group is None else f"{group.units} units"
        raise UsageError(
            f"the model has {has}, and the plan has {planned.units} units",
            where=f"group '{planned.name}'",
            fix=_SAME_GRAPH,
        )
    if not planned.removed:
        return
    problem = None
    if group.pinned is not None:
        problem = f"it is pinned: {group.pinned}"
    elif not 0 <= min(planned.removed) <= max(planned.removed) < group.units:
        problem = f"its units are 0 to {group.units - 1}"
    if problem is not None:
        listed = ", ".join(map(str, planned.removed[:8])) + (", ..." if len(planned.removed) > 8 else "")
        raise UsageError(
            f"the plan removes what cannot go: {problem}",
            where=f"group '{planned.name}', removed: {listed}",
            fix='correct "removed" in the plan',
        )


def _check_whole(groups: ChannelGroups, plan: Plan, removed: Array) -> None:
    """Groups that go entirely leave something that the graph can take in."""
    settled = settled_cut(groups.labelled, removed)
    if settled is not None and settled.problem is not None:
        whole = [group.name for group in plan.groups if len(group.removed) == group.units]
        raise UsageError(
            f"the plan removes what cannot go: {settled.problem}",
            where=f"all units of {', '.join(whole[:5])}{', ...' if len(whole) > 5 else ''}",
            fix="let one unit stay (onnx-prune inspect says which groups may go entirely)",
        )
