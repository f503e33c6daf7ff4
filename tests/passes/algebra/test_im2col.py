"""The table of patches against ONNX Runtime: a kernel that is one at one position copies the input that it covers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.algebra.im2col import patch_table
from onnx_prune.runtime.session import open_session

CONVOLUTIONS = {
    "plain": ((5,), (3,), {}),
    "one by one": ((4, 3), (1, 1), {}),
    "padding that differs": ((5, 4), (3, 2), {"pads": [1, 0, 2, 1]}),
    "strides": ((7, 6), (3, 2), {"strides": [2, 3]}),
    "dilations": ((8, 7), (3, 2), {"dilations": [2, 3], "pads": [2, 1, 0, 1]}),
    "all at once": ((9, 8), (2, 3), {"strides": [2, 3], "dilations": [3, 2], "pads": [1, 2, 3, 0]}),
    "three axes": ((4, 3, 5), (2, 2, 3), {"strides": [1, 2, 2], "pads": [0, 1, 1, 1, 0, 1]}),
    "a kernel that is wider than the input": ((2,), (5,), {"pads": [2, 2]}),
    "same, more after": ((6, 5), (2, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    "same, more before": ((6, 5), (2, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "same, and nothing to pad": ((6,), (1,), {"auto_pad": "SAME_UPPER", "strides": [2]}),
    "valid": ((6, 5), (3, 2), {"auto_pad": "VALID", "strides": [2, 2]}),
}
TRANSPOSED = {
    "plain": ((4,), (3,), {}),
    "strides": ((3, 4), (2, 3), {"strides": [2, 3]}),
    "strides that leave gaps": ((3,), (2,), {"strides": [4]}),
    "padding": ((4, 4), (3, 3), {"strides": [2, 1], "pads": [1, 0, 0, 2]}),
    "dilations": ((4, 3), (2, 3), {"dilations": [3, 2], "strides": [2, 2]}),
    "output padding": ((3, 3), (3, 2), {"strides": [2, 3], "output_padding": [1, 2]}),
    "a stated size": ((3, 4), (3, 3), {"strides": [2, 2], "output_shape": [6, 9]}),
    "a stated size, more after": ((3,), (4,), {"strides": [2], "output_shape": [5], "auto_pad": "SAME_UPPER"}),
    "same, more after": ((3, 4), (3, 4), {"strides": [2, 3], "auto_pad": "SAME_UPPER"}),
    "same, more before": ((3, 4), (4, 5), {"strides": [2, 3], "auto_pad": "SAME_LOWER"}),
    "three axes": ((2, 3, 2), (2, 2, 3), {"strides": [2, 1, 2], "pads": [0, 1, 1, 1, 0, 0]}),
}
CASES = [pytest.param(case, False, id=f"Conv: {name}") for name, case in CONVOLUTIONS.items()]
CASES += [pytest.param(case, True, id=f"ConvTranspose: {name}") for name, case in TRANSPOSED.items()]


def copied(space, kernel, attrs, transposed):
    """(kernel positions, *grid): what ONNX Runtime makes of 1, 2, 3, ... with one filter a kernel position."""
    count = int(np.prod(kernel))
    identity = np.eye(count, dtype=np.float32).reshape(count, 1, *kernel)
    weight = identity.swapaxes(0, 1) if transposed else identity
    op = "ConvTranspose" if transposed else "Conv"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, *space])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(op, ["x", "w"], ["y"], **attrs)
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(np.ascontiguousarray(weight), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    numbered = np.arange(1, np.prod(space) + 1, dtype=np.float32).reshape(1, 1, *space)
    return open_session(model, optimise=False).run({"x": numbered})["y"][0]


@pytest.mark.parametrize(("case", "transposed"), CASES)
def test_the_table_says_what_a_kernel_covers(case, transposed):
    space, kernel, attrs = case
    seen = copied(space, kernel, attrs, transposed)
    table = patch_table(attrs, space, seen.shape[1:], kernel, transposed=transposed)
    assert table.shape == (np.prod(seen.shape[1:]), np.prod(kernel))
    np.testing.assert_array_equal(table.T, seen.reshape(len(seen), -1).astype(int) - 1)  # padding: 0 there, -1 here


def test_another_padding_is_seen():
    space, kernel, attrs = CONVOLUTIONS["padding that differs"]
    seen = copied(space, kernel, attrs, transposed=False)
    shifted = patch_table({"pads": [2, 0, 1, 1]}, space, seen.shape[1:], kernel, transposed=False)
    assert (seen.reshape(len(seen), -1).astype(int) - 1 != shifted.T).any()
