"""Whether a model is one, before any work: its nodes are what their operators ask for, and ONNX Runtime opens it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from ..passes.channels.groups import ChannelGroups
from ..passes.channels.labels import LabelledGraph
from ..passes.errors import BudgetError, ReadError
from ..passes.graph.bodies import bodies, check_loops
from ..passes.graph.inference import with_all_domains
from ..passes.graph.model import Graph, constant_values
from ..passes.graph.shapes import check_bounds, static_shape
from ..passes.graph.spill import without_weights
from ..passes.graph.values import FLOATS
from .data.random_feeds import check_drawable, is_drawable
from .device import Device
from .session import open_session

_OF_ONE_MACHINE = "com.microsoft.nchwc"  # the domain of convolutions in a processor's own memory layout


def check_nodes(graph: Graph, device: Device = "auto") -> None:
    """Raise ReadError where a node is not what its operator asks for and ONNX Runtime does not open the model either.

    Operators that ONNX does not know are passed over: what they ask for is not known.
    """
    check_loops(graph.source.graph)
    wrong = _wrong_node(graph.source)
    if wrong is None:
        return
    try:
        open_session(graph.source, device=device, optimise=False)
    except ReadError as error:
        raise ReadError(
            "the model is not valid",
            where=f"{graph.source.graph.name}: {wrong}",
            fix="export it again; onnx.checker.check_model(path, full_check=True) says what else is wrong with it",
        ) from error


def _wrong_node(model: onnx.ModelProto) -> str | None:
    """What ONNX says of the first node that is malformed, or whose inputs do not fit."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = min(model.ir_version or onnx.IR_VERSION, onnx.IR_VERSION)
    context.opset_imports = {o.domain: o.version for o in model.opset_import}
    for node in model.graph.node:
        if not _known(node, context.opset_imports) or any(a.HasField("t") for a in node.attribute):
            continue
        if next(bodies(node), None) is not None:  # what a body reads of the graph around it is unknown to the check
            continue
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            return " ".join(str(error).split())[:300]
    try:
        found = onnx.shape_inference.infer_shapes(with_all_domains(without_weights(model)), strict_mode=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError) as error:
        return " ".join(str(error).split())[:300]
    check_bounds(model.graph.name, dict(_inferred_shapes(found.graph)))
    return None


def _inferred_shapes(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes of the tensors of a graph and of the bodies in it, as far as they are known."""
    yield from ((value.name, shape) for value in graph.value_info if (shape := static_shape(value.type)))
    for node in graph.node:
        for body in bodies(node):
            yield from _inferred_shapes(body)


def _known(node: onnx.NodeProto, opsets: dict[str, int]) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return onnx.defs.has(node.op_type, opsets.get(domain, 1), domain)


def check_fits(labelled: LabelledGraph, feeds: Mapping[str, np.ndarray], device: Device = "auto") -> None:
    """Raise ReadError where a rule could not take a node, and ONNX Runtime does not run the model either."""
    if not labelled.misfits:
        return
    graph = labelled.graph.source
    try:
        open_session(graph, device=device, optimise=False).run(feeds)
    except ReadError as error:
        raise ReadError(
            "the model is not valid: a weight does not fit what reads it",
            where=f"{graph.graph.name}: {labelled.misfits[0]}",
            fix="export it again; ONNX Runtime does not run it either",
        ) from error


def knows_all_operators(graph: Graph) -> bool:
    """Whether ONNX knows all operators of the main graph."""
    opsets = {o.domain: o.version for o in graph.source.opset_import}
    return all(_known(node, opsets) for node in graph.source.graph.node)


def check_opens(graph: Graph, device: Device = "auto") -> None:
    """Raise ReadError where ONNX Runtime does not know an operator: such a model can be looked at, but not proved."""
    opsets = {o.domain: o.version for o in graph.source.opset_import}
    foreign = [node for node in graph.source.graph.node if not _known(node, opsets)]
    blocked = next((node for node in foreign if node.domain == _OF_ONE_MACHINE), None)
    if blocked is not None:
        raise ReadError(
            "the model was saved by ONNX Runtime's optimiser, for one machine",
            where=f"{graph.source.graph.name}: {blocked.op_type} '{blocked.output[0]}' of {_OF_ONE_MACHINE}",
            fix="give the model as it was before, or save it at the level ORT_ENABLE_EXTENDED",
        )
    if not foreign:
        return
    try:
        open_session(graph.source, device=device, optimise=False)
    except ReadError as error:
        names = ", ".join(sorted({f"{n.domain or 'ai.onnx'}.{n.op_type}" for n in foreign})[:5])
        raise ReadError(
            "ONNX Runtime does not know all operators of the model, so that no cut of it could be proved",
            where=f"{graph.source.graph.name}: {names}",
            fix="convert them to standard operators; onnx-prune inspect shows the channels without running it",
        ) from error


def check_weights(groups: ChannelGroups) -> None:
    """Raise ReadError where a weight that may be cut is NaN or infinite: nothing can be chosen, nothing compared."""
    tensors = groups.labelled.graph.gs.tensors()
    owner = {name: group.name for group in groups.free for name, _, _ in group.slices}
    for name, group in owner.items():
        values = constant_values(tensors[name]) if name in tensors else None
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ReadError(
                "a weight is NaN or infinite",
                where=f"'{name}', group '{group}'",
                fix="export the model again, from a checkpoint of a training that did not diverge",
            )


def check_provable(groups: ChannelGroups) -> None:
    """Raise where no input can be made to prove a cut on: BudgetError where there are no weights, else ReadError."""
    graph = groups.labelled.graph.source.graph
    if not is_drawable(graph):
        if not _has_weights(graph):
            check_anything_free(groups)
        check_drawable(graph)


def _has_weights(graph: onnx.GraphProto) -> bool:
    return any(tensor.data_type in FLOATS and tensor.dims for tensor in graph.initializer)


def check_anything_free(groups: ChannelGroups) -> None:
    """Raise BudgetError where no channel may be removed."""
    if any(group.units > 1 for group in groups.free):
        return
    raise BudgetError(
        f"nothing in this graph can be removed: {why_nothing(groups)}",
        where=f"{groups.labelled.graph.source.graph.name}: {len(groups.groups)} groups of channels",
        fix=f"onnx-prune inspect says of each group why it stays{_INEXACT if _is_coupled(groups) else ''}",
    )


_INEXACT = "; --inexact lets those go that only a normalisation couples"


def _is_coupled(groups: ChannelGroups) -> bool:
    """Whether some groups stay for the statistics of a normalisation alone."""
    return any(
        " couples the channels" in (g.pinned or "") or " takes the mean over" in (g.pinned or "") for g in groups.groups
    )


_NO_WEIGHTS = "it has no weights that make or read channels"
_REASONS = 3  # in a message


def why_nothing(groups: ChannelGroups) -> str:
    """Why no channel may be removed: the reasons, each with the number of groups that it holds."""
    if not groups.groups:
        graph = groups.labelled.graph.source.graph
        sizes_are_known = is_drawable(graph) or not _has_weights(graph)
        return _NO_WEIGHTS if sizes_are_known else "the sizes of what its weights read are not known without a run"
    reasons = Counter(group.pinned or "it has one unit" for group in groups.groups).most_common()
    if len(reasons) == 1:
        return f"all stay: {reasons[0][0]}"
    reasons.sort(key=lambda pair: pair[0].startswith("graph "))  # inputs and outputs stay in every graph
    shown = ", ".join(f"{reason} ({count})" for reason, count in reasons[:_REASONS])
    return f"all {len(groups.groups)} groups stay: {shown}{', ...' if len(reasons) > _REASONS else ''}"
