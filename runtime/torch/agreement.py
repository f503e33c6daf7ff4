"""Whether GraphModule computes what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import torch
from torch import Tensor

from ..proof.compare import Proof, output_error
from ..proof.saturation import observed, tap, taps
from ..session import open_session
from .dtypes import to_numpy
from .graph_module import GraphModule


def agreement(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> Proof:
    """The largest relative difference of the two on one input, on the CPU, with ONNX Runtime's optimisation off.

    Outputs behind a sigmoid or softmax are compared in front of it, as in the proof of a cut. Raises UsageError where
    torch lacks an operator, ReadError where ONNX Runtime does not run the model.
    """
    module = GraphModule(model).eval()
    chosen = observed(model.graph)
    hidden = {output: tensor for output, tensor in chosen.items() if tensor != output}
    hidden = {output: tensor for output, tensor in hidden.items() if tensor in module.tensor_names}
    session = open_session(model, device="cpu", optimise=False, additions=taps(hidden) if hidden else None)
    reference = session.run(feeds, [tap(name) if name in hidden else name for name in module.output_names])
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        inputs = [torch.from_numpy(np.array(feeds[name])) for name in module.input_names]
        outputs = module(*inputs, edits={tensor: _keeper(seen, tensor) for tensor in hidden.values()})
    worst = Proof(0.0, "", 1)
    for name, output, value in zip(module.output_names, outputs, reference.values(), strict=True):
        found = seen[hidden[name]] if name in hidden else output
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
        error = output_error(to_numpy(found, kind), value)
        if not worst.output or error > worst.error:
            worst = Proof(error, name, 1)
    return worst


def _keeper(seen: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def keep(tensor: Tensor) -> Tensor:
        seen[name] = tensor
        return tensor

    return keep
