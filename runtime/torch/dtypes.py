"""Tensors of ONNX as tensors of torch and back, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from ...passes.graph.mapped import tensor_array

TORCH: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
}


def to_torch(tensor: onnx.TensorProto) -> torch.Tensor | None:
    """A tensor of its own memory; None for types that torch does not compute with (strings, four bits)."""
    if tensor.data_type not in TORCH:
        return None
    array = np.array(tensor_array(tensor), order="C")
    if tensor.data_type == TensorProto.BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor, data_type: int) -> np.ndarray:
    """The values as ONNX's type; a module that was moved to another type is rounded back."""
    held = tensor.detach().to("cpu", TORCH[data_type]).contiguous()
    if data_type == TensorProto.BFLOAT16:
        return held.view(torch.int16).numpy().view(helper.tensor_dtype_to_np_dtype(data_type))
    return held.numpy()
