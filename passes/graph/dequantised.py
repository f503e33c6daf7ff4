"""Weights that a DequantizeLinear makes of an integer constant: read as the floats that they stand for, written back.

w = (q - zero) * scale, with one scale for all or one an entry of an axis. Scales and zero points stay.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .model import constant_values, set_constant

Array = np.ndarray


def float_values(tensor: gs.Tensor) -> Array | None:
    """The floats of a constant, or of what DequantizeLinear makes of one; None for anything else."""
    values = constant_values(tensor)
    if values is not None:
        return values if values.dtype.kind == "f" else None
    node = dequantising(tensor)
    parts = None if node is None else _parts(node)
    return None if parts is None else (parts[0].astype(np.float32) - parts[2]) * parts[1]


def set_float_values(tensor: gs.Tensor, values: Array) -> None:
    """Put floats of the same shape in their place; a quantised constant gets the nearest integers of its range."""
    node = dequantising(tensor)
    if node is None:
        set_constant(tensor, values)
        return
    parts = _parts(node)
    assert parts is not None, f"{tensor.name} is not made of constants"
    whole, scale, zero = parts
    limits = np.iinfo(whole.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.nan_to_num(np.rint(values.astype(np.float64) / scale) + zero)
    set_constant(node.inputs[0], np.clip(steps, limits.min, limits.max).astype(whole.dtype))


def stored(tensor: gs.Tensor) -> gs.Tensor:
    """The constant that holds the values: the tensor itself, or what is dequantised."""
    node = dequantising(tensor)
    return tensor if node is None else node.inputs[0]


def dequantising(tensor: gs.Tensor) -> gs.Node | None:
    """The DequantizeLinear that makes it."""
    makers = tensor.inputs
    return makers[0] if len(makers) == 1 and makers[0].op == "DequantizeLinear" else None


def _parts(node: gs.Node) -> tuple[Array, Array, Array] | None:
    """(integers, scales, zeros), the last two so that they broadcast; None where not all are known."""
    whole, scale = constant_values(node.inputs[0]), constant_values(node.inputs[1])
    has_zero = len(node.inputs) > 2 and node.inputs[2].name
    zero = constant_values(node.inputs[2]) if has_zero else np.zeros((), np.int32)
    if whole is None or scale is None or zero is None or whole.dtype.kind not in "iu" or node.attrs.get("block_size"):
        return None
    along = [1] * whole.ndim
    if scale.size > 1:
        along[int(node.attrs.get("axis", 1)) % whole.ndim] = -1
    return (
        whole,
        scale.reshape(along).astype(np.float32),
        np.reshape(zero, along if zero.size > 1 else ()).astype(np.float32),
    )
