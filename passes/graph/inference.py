"""ONNX's shape inference on models that it refuses as a whole: domains not imported, operators that nobody knows."""

from __future__ import annotations

import onnx

_FAR = 1 << 20
_FAILURES = (
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    RuntimeError,
    ValueError,
    MemoryError,
)


def inferred(model: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto:
    """The model with what ONNX infers of its tensors; as it is, where ONNX can infer nothing.

    Domains that the model forgets to import are taken as version 1 meanwhile, so that their operators are skipped.
    """
    light = with_all_domains(model)
    plain = _infer(light) or model
    if not data_prop or _counts_far(plain.graph):
        return plain
    return _infer(light, data_prop=True) or plain


def with_all_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy of it that imports the domains that it forgets."""
    imported = {o.domain for o in model.opset_import} | {"", "ai.onnx"}
    missing = sorted({node.domain for node in model.graph.node} - imported)
    if not missing:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for domain in missing:
        copy.opset_import.add(domain=domain, version=1)
    return copy


def _infer(model: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto | None:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    except _FAILURES:
        return None


def _counts_far(graph: onnx.GraphProto) -> bool:
    """Whether a vector is so long that its numbers would take more than the graph: a Range may count to 10^12."""
    for value in graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 1 and dims[0].dim_value > _FAR:
            return True
    return False
