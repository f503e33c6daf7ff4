"""Whether ONNX Runtime's own optimiser ends the process on a model: tried in another process, where it may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto

from ...passes.graph.values import float_types

# ONNX Runtime 1.31.1 dies (SIGSEGV) as it looks for convolutions to lay out in blocks in float16 models of free sizes
# that hold recurrent networks or attention. It is the last step of the optimisation, and the models run without it.
LAYOUT = "NchwcTransformer"
_LARGE = 1 << 28  # bytes of a file that is not read to find out
_SECONDS = 60.0
_OPEN = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
if sys.argv[1]:
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", sys.argv[1])
source = sys.argv[2] or sys.stdin.buffer.read()
try:
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
except Exception:
    pass
"""


_FEW = 3  # nodes: parts of a model that are timed alone are not tried
_tried: dict[frozenset[str], bool] = {}  # the operators of a model -> whether it crashed


def left_out(model: onnx.ModelProto | str | Path, source: str | bytes, folder: str | Path | None) -> list[str]:
    """Optimisers to leave out for the model: found out for models in half precision, once for each set of operators.

    source: what ONNX Runtime reads of it, a path or bytes; folder: where its external data lie. What crashed once in
    this process is not tried again: what is timed is compared, and has to be optimised alike.
    """
    graph = _graph_in_halves(model)
    if graph is None:
        return []
    operators = frozenset(node.op_type for node in graph.node)
    if not any(_tried.values()) and len(graph.node) > _FEW and operators not in _tried:
        _tried[operators] = _crashes(source, str(folder or ""))
    return [LAYOUT] if any(_tried.values()) else []


def _crashes(source: str | bytes, folder: str) -> bool:
    path, data = (source, b"") if isinstance(source, str) else ("", source)
    command = [sys.executable, "-c", _OPEN, folder, path]
    try:
        ended = subprocess.run(command, input=data, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603 - our own code, by this interpreter
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode < 0


def _graph_in_halves(model: onnx.ModelProto | str | Path) -> onnx.GraphProto | None:
    """The model's graph where it holds numbers in float16, and is not too large a file to find out."""
    if not isinstance(model, onnx.ModelProto):
        try:
            if Path(model).stat().st_size > _LARGE:
                return None
            model = onnx.load(model, load_external_data=False)
        except Exception:  # noqa: BLE001 - protobuf's DecodeError has no public base; who opens it says what is wrong
            return None
    return model.graph if TensorProto.FLOAT16 in float_types(model.graph) else None
