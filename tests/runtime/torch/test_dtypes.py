"""Tensors go to torch and come back bit for bit, in every type that torch computes with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.graph.values import FLOATS
from onnx_prune.runtime.torch.dtypes import TORCH, to_numpy, to_torch


def tensor_of(data_type, shape=(3, 4)):
    """Random bits as a tensor of that type; of floats without NaN, whose bits need not stay."""
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    rng = np.random.default_rng(data_type)
    if data_type in FLOATS:
        return numpy_helper.from_array(rng.normal(size=shape).astype(dtype), "t")
    high = 2 if data_type == TensorProto.BOOL else 1 << (8 * dtype.itemsize - 1)
    return numpy_helper.from_array(rng.integers(0, high, shape).astype(dtype), "t")


@pytest.mark.parametrize("data_type", TORCH, ids=TensorProto.DataType.Name)
def test_every_bit_comes_back(data_type):
    tensor = tensor_of(data_type)
    held = to_torch(tensor)
    assert held.dtype == TORCH[data_type]
    assert tuple(held.shape) == (3, 4)
    before, after = numpy_helper.to_array(tensor), to_numpy(held, data_type)
    assert (after.dtype, after.tobytes()) == (before.dtype, before.tobytes())


@pytest.mark.parametrize("data_type", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_halves_have_the_values_that_they_had(data_type):
    tensor = tensor_of(data_type)
    expected = numpy_helper.to_array(tensor).astype(np.float32)
    assert np.array_equal(to_torch(tensor).float().numpy(), expected)


def test_a_module_of_another_type_is_rounded_back():
    values = torch.tensor([1.0 + 2**-20, 2.0], dtype=torch.float64)
    assert to_numpy(values, TensorProto.FLOAT16).tolist() == [1.0, 2.0]


def test_memory_is_its_own():
    tensor = tensor_of(TensorProto.FLOAT)
    before = tensor.SerializeToString()
    to_torch(tensor).zero_()
    assert tensor.SerializeToString() == before


def test_strings_have_no_tensor():
    assert to_torch(helper.make_tensor("t", TensorProto.STRING, [1], [b"a"])) is None
