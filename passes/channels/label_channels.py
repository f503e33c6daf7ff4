"""One sweep over the graph, from its inputs to its outputs: every axis of every tensor gets its channel labels."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.bodies import captured_names
from ..graph.model import Graph, constant_values
from ..graph.shapes import Facts
from ..graph.values import MOVED
from .labels import LabelledGraph
from .rules import Rule, find_rule
from .sizes import follow_sizes
from .sweep import Sweep

Array = np.ndarray


def label_channels(graph: Graph, facts: Facts, *, inexact: bool = False) -> LabelledGraph:
    """Sweep the graph once in topological order and label every axis of every tensor.

    inexact: leave channels free that are coupled by a normalisation's mean and variance only.
    """
    sweep = Sweep(graph, facts, inexact=inexact)
    tensors = graph.gs.tensors()
    for index, node in enumerate(graph.gs.nodes):
        sweep.begin(index)
        _pin_captured(sweep, tensors)
        _visit(sweep, find_rule(node))
    _pin_outputs(sweep)
    return sweep.labelled


def _visit(sweep: Sweep, rule: Rule | None) -> None:
    node, shapes = sweep.node, sweep.facts.shapes
    if node.op == "Constant" and constant_values(node.outputs[0]) is not None:
        return  # an initializer in another place: who reads it asks for its labels
    splits = len(sweep.labelled.splits)
    if rule is None:
        domain = f"{node.domain}." if node.domain not in (None, "", "ai.onnx") else ""
        sweep.opaque(f"operator {domain}{node.op} has no rule")
    elif any(t.name and t.name not in shapes for t in [*node.inputs, *node.outputs]):
        sweep.opaque(f"a shape at {node.op} cannot be known")
    else:
        _apply(sweep, rule)
    _follow_moves(sweep, splits)
    follow_sizes(sweep)


def _apply(sweep: Sweep, rule: Rule) -> None:
    """What a rule cannot take is unknown: ONNX infers shapes of nodes whose weights do not fit what they read."""
    try:
        rule.labels(sweep)
    except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
        where = f"{sweep.node.op} '{sweep.name}'"
        sweep.labelled.misfits.append(f"{where}: {' '.join(str(error).split())[:200]}")
        sweep.opaque(f"{where} is given what does not fit")
        return
    _complete(sweep)


def _complete(sweep: Sweep) -> None:
    """Every output has labels of its own shape, else the node is treated as unknown."""
    for tensor in sweep.node.outputs:
        if not tensor.name:
            continue
        axes = sweep.labelled.axes.get(tensor.name)
        if axes is None or tuple(len(a) for a in axes) != sweep.facts.shapes[tensor.name]:
            sweep.opaque(f"{sweep.node.op} has a form that its rule does not cover")
            return


def _follow_moves(sweep: Sweep, splits: int) -> None:
    """Whether the node only moves a constant about; splits: how many the sweep had met before the node."""
    node = sweep.node
    sources = range(len(node.inputs) if node.op == "Concat" else 1)
    if node.op in MOVED and all(sweep.is_moved_constant(i) for i in sources):
        sweep.moved.update(o.name for o in node.outputs)
        if len(sweep.labelled.splits) > splits or any(t.name in sweep.relabelled for t in node.inputs):
            sweep.relabelled.update(o.name for o in node.outputs)


def _pin_captured(sweep: Sweep, tensors: dict[str, gs.Tensor]) -> None:
    """Tensors that the bodies of If, Loop and Scan read from outside stay as they are."""
    for name in sorted(captured_names(sweep.node)):
        tensor = tensors.get(name)
        axes = sweep.labelled.axes.get(name) or (sweep.constant(tensor) if tensor is not None else ())
        for labels in axes:
            sweep.pin(labels, f"it is read inside the body of {sweep.node.op}")


def _pin_outputs(sweep: Sweep) -> None:
    constants: dict[str, list[Array]] = {}
    for (name, _), constant in sweep.labelled.constants.items():
        constants.setdefault(name, []).extend(constant.labels)
    for tensor in sweep.graph.gs.outputs:
        for labels in sweep.labelled.axes.get(tensor.name) or constants.get(tensor.name, ()):
            sweep.pin(labels, f"graph output '{tensor.name}'")
