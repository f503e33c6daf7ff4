"""Whether a saved file is the model that was proved: read back, and run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from ...passes.errors import ProofError, ReadError
from ...passes.graph.same import different_nodes, different_weights
from ...passes.rewrite.arithmetic.seeded import draws_anew
from ..device import Device
from ..reduced import fitted
from ..session import Runnable, open_session
from .compare import Shown, in_halves, output_error
from .inner import Feeds

_SAME = 1e-5  # relative, of one model that is run twice: threads may add up in another order
# The same in half precision: ONNX Runtime keeps float32 between two nodes that it computes in it, unless what is
# between them is shown (an LSTM of 24 units: 1.6e-5).
_SAME_IN_HALVES = 1e-2


def shown(model: Runnable, feeds: Feeds, device: Device = "auto") -> Shown:
    """Run it once. Raises ReadError where it does not run."""
    return Shown(feeds, open_session(fitted(model, feeds), device=device, optimise=False).run(feeds), device)


def check_saved(file: Path, model: onnx.ModelProto, expected: Shown) -> None:
    """Raise ProofError where the file does not hold the model, to the bit, or does not compute what is expected of it.

    Where it draws random numbers without a seed, what it computes is not compared: it is another result in every run.
    External weights are read by ONNX, and by ONNX Runtime, from where the file says that they lie.
    """
    try:
        found = onnx.load(file, load_external_data=False)
        nodes = different_nodes(model.graph, found.graph)
        different = [*_declared(model, found), *nodes, *different_weights(model.graph, found.graph, file.parent)]
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ProofError("the saved file cannot be read back", where=f"{file.name}: {error}", fix=_FAULT) from error
    if different:
        raise ProofError(
            "the saved file is not the model that was proved",
            where=f"{file.name}: {', '.join(different[:3])}",
            fix=_FAULT,
        )
    try:
        now = shown(file, expected.feeds, expected.device).outputs
    except ReadError as error:
        raise ProofError("the saved file does not run", where=f"{file.name}: {error.what}", fix=_FAULT) from error
    if draws_anew(model.graph):  # other numbers in every run
        return
    same = _SAME_IN_HALVES if in_halves(model) else _SAME
    for name, value in expected.outputs.items():
        if name not in now or not output_error(now[name], value) <= same:
            raise ProofError(
                "the saved file does not compute what the proved model does",
                where=f"{file.name}, output '{name}'",
                fix=_FAULT,
            )


def _declared(model: onnx.ModelProto, found: onnx.ModelProto) -> Iterator[str]:
    """What the models say of themselves, beside nodes and weights, where that is not the same."""
    opsets = [{(o.domain or "ai.onnx", o.version) for o in one.opset_import} for one in (model, found)]
    if opsets[0] != opsets[1]:
        yield "the opsets"
    for part in ("input", "output"):
        if list(getattr(model.graph, part)) != list(getattr(found.graph, part)):
            yield f"the {part}s"


_FAULT = "nothing was written; check the disk, and report it with the graph if it happens again"
