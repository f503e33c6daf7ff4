"""What a pass puts into a graph has a name that nothing there has."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper, parser
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.names import Names, modules

SPLIT = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[8, 3, 1, 1] w1, float[2, 4, 1, 1] w2, int64[2] sizes = {4, 4}, float[2] split_pruned_operand> {
      a = Conv (x, w1)
      u, v = Split <axis = 1> (a, sizes)
      s = Add (u, v)
      y = Conv (s, w2)
    }
    """


def test_a_name_is_its_stem_until_that_is_taken():
    names = Names(["a", "b_3"])
    assert [names.fresh("b") for _ in range(3)] == ["b", "b_2", "b_4"]
    assert names.fresh("a") == "a_2"


def test_a_numbered_name_never_is_the_stem():
    names = Names(["a_1"])
    assert [names.numbered("a") for _ in range(2)] == ["a_2", "a_3"]
    assert names.fresh("a") == "a"


def test_weights_that_nobody_reads_and_tensors_in_bodies_have_their_names():
    one = helper.make_tensor_value_info("inside", onnx.TensorProto.FLOAT, [1])
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["inside"])], "body", [], [one])
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1] x, bool c) => (float[1] y) <float[1] unread = {1}> { y = Identity (x) }
    """)
    model.graph.node.insert(0, helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    model.graph.node[1].input[0] = "z"
    names = load(model).names()
    assert [names.fresh(name) for name in ("unread", "inside", "x", "free")] == ["unread_2", "inside_2", "x_2", "free"]


def test_an_operand_of_a_cut_does_not_take_the_name_of_a_weight_that_nobody_reads(graphs):
    model = graphs.parse(SPLIT)
    model.graph.node[1].name = "split"
    unread = next(t for t in model.graph.initializer if t.name == "split_pruned_operand")
    groups = graphs.groups_of(model)
    removed = groups.removed_labels({groups.free[0].name: [0]})
    cut = to_model(apply_removal(groups.labelled, removed))
    held = [t for t in cut.graph.initializer if t.name == unread.name]
    assert [t.SerializeToString() for t in held] == [unread.SerializeToString()]
    assert (
        numpy_helper.to_array(next(t for t in cut.graph.initializer if t.name == cut.graph.node[1].input[1])).sum() < 8
    )


def test_an_output_that_is_put_in_does_not_take_the_name_of_a_weight():
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[8] x) => (float[4] y) <int64[2] sizes = {4, 4}, float[4] y_unread_1 = {1, 2, 3, 4}> {
      y, z = Split <axis = 0> (x, sizes)
    }
    """)
    model.graph.node[0].output[1] = ""
    names = [*load(model).source.graph.node[0].output, *(t.name for t in load(model).source.graph.initializer)]
    assert len(set(names)) == len(names) == 4


def test_modules_are_what_stands_before_a_dot():
    assert modules(["a.b.c", "d", "e."]) == {"a", "a.b", "e"}
