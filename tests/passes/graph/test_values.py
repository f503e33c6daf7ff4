"""Shape arithmetic in numpy against ONNX Runtime, and what its results depend on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.values import DYNAMIC, FOLDABLE, TAINTED, float_types, fold, fold_kinds

INT, FLOAT = np.int64, np.float32


def ints(*values):
    return np.array(values, INT)


GRID = np.arange(24, dtype=INT).reshape(2, 3, 4)
CASES = {
    "Identity": (ints(1, 2),),
    "Gather a row": (GRID, ints(1, -1)),
    "Gather an entry along an axis": (GRID, np.array(-2, INT), {"axis": 1}),
    "Concat": (GRID, GRID[:1]),
    "Concat axis from the end": (GRID, GRID[:, :, :1], {"axis": -1}),
    "Unsqueeze": (GRID, ints(0, -1)),
    "Squeeze": (GRID[:1], ints(0)),
    "Squeeze all": (GRID[:1, :, :1],),
    "Squeeze by no axes": (GRID[:1, :, :1], ints()),
    "Slice": (GRID, ints(1, 0), ints(9, -1), ints(1, 2)),
    "Slice backwards": (GRID, ints(-1), ints(-9), ints(2), ints(-2)),
    "Slice to the first": (GRID, ints(2), ints(np.iinfo(INT).min), ints(2), ints(-1)),
    "Slice nothing": (GRID, ints(3), ints(1), ints(2)),
    "Split": (GRID, ints(1, 3), {"axis": -1}),
    "Split into parts": (GRID, {"axis": 1, "num_outputs": 2}),
    "Reshape": (GRID, ints(0, -1, 2)),
    "Reshape to nothing": (GRID[:0], ints(0, 5), {"allowzero": 1}),
    "Transpose": (GRID,),
    "Transpose by a permutation": (GRID, {"perm": [1, 0, 2]}),
    "Expand": (GRID[:, :1], ints(3, 1)),
    "Expand a truth": (np.array([[True], [False]]), ints(1, 3)),
    "Flatten": (GRID, {"axis": 2}),
    "Flatten axis from the end": (GRID, {"axis": -1}),
    "Flatten everything": (GRID, {"axis": 0}),
    "Tile": (GRID, ints(1, 2, 1)),
    "Cast": (np.array([-1.5, 2.7], FLOAT), {"to": onnx.TensorProto.INT64}),
    "Add": (GRID, ints(1, 2, 3, 4)),
    "Sub": (GRID, np.array(3, INT)),
    "Mul": (GRID, GRID),
    "Div toward zero": (ints(-7, 7, -7, 7), ints(2, -2, -2, 2)),
    "Div of floats": (np.array([1, 2], FLOAT), np.array([3, 4], FLOAT)),
    "Mod": (ints(-7, 7, -7), ints(3, -3, -3)),
    "Mod as in C": (ints(-7, 7, -7), ints(3, -3, -3), {"fmod": 1}),
    "Pow": (ints(2, 3), ints(3, 2)),
    "Clip": (GRID, np.array(3, INT), np.array(9, INT)),
    "Neg": (GRID,),
    "Abs": (-GRID,),
    "Sqrt": (np.array([4.0, 2.0], FLOAT),),
    "Reciprocal": (np.array([4.0, 2.0], FLOAT),),
    "Floor": (np.array([-1.5, 1.5], FLOAT),),
    "Ceil": (np.array([-1.5, 1.5], FLOAT),),
    "Round half to even": (np.array([0.5, 1.5, -2.5], FLOAT),),
    "Min": (GRID, ints(5, 6, 7, 8)),
    "Max": (GRID, np.array(7, INT), np.array(11, INT)),
    "Where": (GRID > 5, GRID, np.array(-1, INT)),
    "Equal": (GRID, np.array(4, INT)),
    "Less": (GRID, np.array(4, INT)),
    "LessOrEqual": (GRID, np.array(4, INT)),
    "Greater": (GRID, np.array(4, INT)),
    "GreaterOrEqual": (GRID, np.array(4, INT)),
    "Not": (GRID > 4,),
    "And": (GRID > 4, GRID < 9),
    "Or": (GRID < 4, GRID > 9),
    "ReduceProd": (GRID[:1, :, :2] + 1, ints(1)),
    "ReduceSum": (GRID, ints(0, -1), {"keepdims": 0}),
    "ReduceSum all": (GRID,),
    "ReduceSum by no axes": (GRID, ints()),
    "ReduceSum of nothing by no axes": (GRID, ints(), {"noop_with_empty_axes": 1}),
    "ReduceSum of nothing": (GRID, {"noop_with_empty_axes": 1}),
    "ReduceMax": (GRID, ints(1)),
    "ReduceMin all": (GRID, {"keepdims": 0}),
    "Range": (np.array(2, INT), np.array(9, INT), np.array(3, INT)),
    "Range backwards": (np.array(9, INT), np.array(2, INT), np.array(-3, INT)),
    "ConstantOfShape": (ints(2, 3), {"value": numpy_helper.from_array(ints(7))}),
    "ConstantOfShape zeros": (ints(2, 3),),
    "OneHot": (ints(1, -1, 0), np.array(4, INT), ints(0, 5)),
    "OneHot along the first axis": (ints(1, 0), np.array(3, INT), ints(2, 5), {"axis": 0}),
    "NonZero": (GRID % 3,),
}


def one_node(name):
    """A model of that node alone, its feeds, and how many outputs it has."""
    op, arrays = name.partition(" ")[0], list(CASES[name])
    attrs = arrays.pop() if isinstance(arrays[-1], dict) else {}
    attrs = {"axis": 0, **attrs} if op == "Concat" else attrs
    outputs = ["y", "z"] if op == "Split" else ["y"]
    ends = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for i, a in enumerate(arrays)
    ]
    node = helper.make_node(op, [end.name for end in ends], outputs, **attrs)
    results = [onnx.ValueInfoProto(name=output) for output in outputs]
    graph = helper.make_graph([node], "g", ends, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), arrays


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_onnx_runtime(name, graphs):
    model, arrays = one_node(name)
    expected = graphs.ort(model, {f"x{i}": a for i, a in enumerate(arrays)})
    node = load(model).gs.nodes[0]
    outputs = fold(node.op, node.attrs, arrays)
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_array_equal(ours, theirs)


def test_every_operator_is_compared():
    assert {name.partition(" ")[0] for name in CASES} == FOLDABLE


@pytest.mark.parametrize("name", CASES)
def test_what_a_number_follows_from_is_said(name):
    """Change one number that is said to depend on a size: no result changes that is said to be fixed."""
    model, arrays = one_node(name)
    node = load(model).gs.nodes[0]
    before = fold(node.op, node.attrs, arrays)
    data = arrays[0]
    if not data.size:
        return
    kinds = [np.zeros(a.shape, np.uint8) for a in arrays]
    kinds[0].reshape(-1)[-1] = TAINTED
    changed = data.copy()
    changed.reshape(-1)[-1] = not data.reshape(-1)[-1] if data.dtype == bool else data.reshape(-1)[-1] + 1
    after = fold(node.op, node.attrs, [changed, *arrays[1:]])
    said = fold_kinds(node.op, node.attrs, arrays, kinds, before)
    for old, new, kind in zip(before, after, said, strict=True):
        assert kind.shape == old.shape
        assert old.shape == new.shape or kind.all() or not kind.size
        if old.shape == new.shape:
            assert not ((old != new) & (kind == 0)).any()


def test_moved_sizes_keep_their_kind_and_others_theirs():
    kinds = [np.array([0, TAINTED, DYNAMIC, 0], np.uint8), np.zeros(2, np.uint8)]
    (kind,) = fold_kinds("Gather", {}, [ints(2, 8, 4, 4), ints(1, 2)], kinds, [ints(8, 4)])
    assert kind.tolist() == [TAINTED, DYNAMIC]
    (kind,) = fold_kinds("Mul", {}, [ints(8), ints(4)], [kinds[0][1:2], kinds[0][2:3]], [ints(32)])
    assert kind.tolist() == [TAINTED | DYNAMIC]


def test_an_index_that_depends_on_a_size_taints_what_it_picks():
    kinds = [np.zeros(3, np.uint8), np.array([TAINTED], np.uint8)]
    (kind,) = fold_kinds("Gather", {}, [ints(5, 6, 7), ints(1)], kinds, [ints(6)])
    assert kind.tolist() == [TAINTED]


@pytest.mark.parametrize(
    ("op", "arrays"), [("Conv", (GRID,)), ("Reshape", (GRID, ints(5, 5))), ("Gather", (GRID, ints(9)))]
)
def test_what_cannot_be_folded_is_nothing(op, arrays):
    assert fold(op, {}, arrays) is None


def test_the_types_of_floats_are_seen_in_weights_constants_bodies_casts_and_what_is_declared():
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, np.float16)))
    body = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT16, [2])])
    branches = [helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)]
    cast = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)]
    weight = numpy_helper.from_array(np.ones(2), "w")
    declared = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    assert float_types(helper.make_graph(branches, "g", [], [])) == {TensorProto.FLOAT16}
    assert float_types(helper.make_graph(cast, "g", [], [])) == {TensorProto.BFLOAT16}
    assert float_types(helper.make_graph([], "g", [declared], [], [weight])) == {TensorProto.FLOAT, TensorProto.DOUBLE}
    count = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    assert not float_types(helper.make_graph([], "g", [count], [], [numpy_helper.from_array(np.arange(2), "i")]))
