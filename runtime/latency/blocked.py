"""The blocked layout in which ONNX Runtime runs convolutions on CPUs: how many channels lie together."""

from __future__ import annotations

import functools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...passes.graph.scratch import scratch_folder
from ..device import Device
from ..session import RECORDED, open_session
from .profile import profile, recorded

_CHANNELS = 4  # fewer than any block: they are padded to one
_SIZE = 64


@functools.cache
def block_size(device: Device = "auto") -> int:
    """16 with AVX-512, 8 with AVX2, 1 where there is no such layout: what the filters of a convolution are padded to.

    Source: onnxruntime/core/optimizer/nchwc_transformer.cc.
    """
    with scratch_folder() as folder:
        open_session(_convolution(1), device=device, threads=1, record=folder).end_record()
        seen = recorded(folder / RECORDED, lambda file: onnx.load(file).graph)
    return next((tensor.dims[0] for tensor in seen.initializer if tensor.dims[0] > _CHANNELS), 1)


@functools.cache
def reorder_ms(device: Device = "auto") -> float:
    """Milliseconds for each element that leaves the blocked layout: 0 where nothing has to."""
    data = {"x": np.zeros((1, _CHANNELS, _SIZE, _SIZE), np.float32)}
    nodes = profile(_convolution(_SIZE), data, device=device, seconds=0.1)
    return sum(node.ms for node in nodes if node.op == "nchwc.ReorderOutput") / (_CHANNELS * _SIZE**2)


def _convolution(size: int) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((_CHANNELS, _CHANNELS, 1, 1), np.float32), "w")
    shape = [1, _CHANNELS, size, size]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], "c")], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
