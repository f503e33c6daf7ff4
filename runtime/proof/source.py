"""Whether what was read is what the file says: before anything is cut, so that no fault of reading hides in the twin.

The cut model and its twin come out of the same reading and the same writing, and what is lost there is lost in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from onnx import external_data_helper

from ...passes.channels.groups import ChannelGroups
from ...passes.errors import ProofError
from ...passes.graph.export import to_model, written_nodes
from ...passes.graph.mapped import is_external
from ...passes.graph.model import Graph, constant_tensor
from ...passes.graph.same import different_nodes, different_weights, loaded, same_tensor
from ...passes.graph.spill import SPILL_BYTES, weight_bytes
from ...passes.graph.tidy import with_named_outputs
from ..device import Device
from ..reduced import fitted
from ..trial import runs_on
from .inner import Feeds
from .prove import prove_same, written

_MANY = 3  # names in a message


def check_read(groups: ChannelGroups, feeds: Feeds, device: Device = "auto") -> None:
    """Compare the model as it was given with the graph that was read, written without a cut.

    Node by node and bit by bit; where reading put something right (order, names, functions, computed weights), both are
    run and compared, tensor by tensor. A model that ONNX Runtime runs only after it was put right is not compared.
    Raises ProofError where they are not the same.
    """
    graph = groups.labelled.graph
    given, folder = _as_given(graph)
    given = None if given is None else with_named_outputs(given)
    different = [] if given is None else list(_different(given, folder, graph))
    if given is None or not different:
        return
    if folder is not None:
        external_data_helper.load_external_data_for_model(given, str(folder))
    if not runs_on(fitted(given, feeds), feeds, device=device):
        return
    try:
        with written(graph) as uncut:
            prove_same(groups, uncut, given, feeds, device)
    except ProofError as error:
        raise ProofError(
            f"what was read is not what the model says: {error.what}",
            where=f"{error.where}; they differ in {', '.join(different[:_MANY])}",
            fix="nothing was written; this is a bug of onnx-prune: please report it with the graph",
        ) from error


def _as_given(graph: Graph) -> tuple[onnx.ModelProto | None, Path | None]:
    """The model, read once more by ONNX alone, and the folder of its external weights where it has some."""
    given = graph.origin
    if given is None or isinstance(given, onnx.ModelProto):
        return given, None
    if isinstance(given, bytes):
        return onnx.load_model_from_string(given), None
    model = onnx.load(given, load_external_data=False)
    return model, Path(given).parent if any(map(is_external, model.graph.initializer)) else None


def _different(given: onnx.ModelProto, folder: Path | None, graph: Graph) -> Iterator[str]:
    """What is not the same in a model and in the graph that was read from it, by name."""
    if folder is None and weight_bytes(graph.source, mapped=True) <= SPILL_BYTES:
        uncut = to_model(graph)
        for part in ("input", "output"):
            if [v.name for v in getattr(given.graph, part)] != [v.name for v in getattr(uncut.graph, part)]:
                yield f"the {part}s"
        if {(o.domain, o.version) for o in given.opset_import} != {(o.domain, o.version) for o in uncut.opset_import}:
            yield "the opsets"
        yield from different_nodes(given.graph, uncut.graph)
        yield from different_weights(given.graph, uncut.graph)
        return
    yield from different_nodes(given.graph, written_nodes(graph))
    held = graph.gs.tensors()
    for tensor in given.graph.initializer:
        constant = held.get(tensor.name)
        if isinstance(constant, gs.Constant) and not same_tensor(loaded(tensor, folder), constant_tensor(constant)):
            yield tensor.name
