"""What ONNX Runtime puts up with is put right, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.graph.tidy import tidied

from .small_models import chain, copy_of


def test_a_clean_model_is_itself():
    model = chain()
    assert tidied(model, "here") is model


def test_nodes_stand_after_what_they_read_and_else_as_before():
    model = chain()
    nodes = [copy_node(node) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([nodes[2], nodes[0], nodes[1]])
    before = copy_of(model)
    assert [node.name for node in tidied(model, "here").graph.node] == ["a", "b", "y"]
    assert model == before


def test_what_a_body_reads_counts_as_read():
    model = chain()
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 4, 4, 4])
    body = helper.make_graph([helper.make_node("Identity", ["y"], ["o"])], "body", [], [out])
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    model.graph.node.insert(0, helper.make_node("If", ["c"], ["z"], "if", then_branch=body, else_branch=body))
    assert [node.name for node in tidied(model, "here").graph.node] == ["a", "b", "y", "if"]


def test_a_circle_is_left_for_the_reader_to_refuse():
    model = chain()
    model.graph.node[0].input[0] = "b"
    assert [node.name for node in tidied(model, "here").graph.node] == ["a", "b", "y"]


def copy_node(node):
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def test_nodes_of_one_name_are_numbered():
    model = chain()
    for node, name in zip(model.graph.node, ("conv", "conv_1", "conv"), strict=True):
        node.name = name
    assert [node.name for node in tidied(model, "here").graph.node] == ["conv", "conv_1", "conv_2"]


def test_a_graph_without_a_name_gets_one():
    model = chain()
    model.graph.name = ""
    assert tidied(model, "here").graph.name


def test_an_output_that_is_left_out_is_named_unless_it_is_optional():
    split = helper.make_node("Split", ["x"], ["", "b"], axis=1)
    pool = helper.make_node("MaxPool", ["b"], ["y", ""], kernel_shape=[1, 1])
    ends = [helper.make_tensor_value_info("x", 1, [1, 4, 2, 2]), helper.make_tensor_value_info("y", 1, [1, 2, 2, 2])]
    graph = helper.make_graph([split, pool], "g", ends[:1], ends[1:])
    tidy = tidied(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), "here")
    assert [list(node.output) for node in tidy.graph.node] == [["b_unread_1", "b"], ["y", ""]]


@pytest.mark.parametrize("field", ["input", "value_info"])
def test_an_initializer_is_declared_as_it_is(field):
    model = chain()
    getattr(model.graph, field).append(helper.make_tensor_value_info("first", TensorProto.INT8, [6, 9, None, 3]))
    declared = getattr(tidied(model, "here").graph, field)[-1].type.tensor_type
    assert declared.elem_type == TensorProto.FLOAT
    assert [d.dim_value for d in declared.shape.dim] == [6, 2, 3, 3]


def sparse(indices, dims=(4, 6, 3, 3)):
    values = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "second")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(indices, np.int64)), list(dims))


@pytest.mark.parametrize("indices", [[1, 215], [[0, 0, 0, 1], [3, 5, 2, 2]]], ids=["flat", "by axis"])
def test_a_sparse_weight_is_written_out(indices):
    model = chain()
    del model.graph.initializer[1:]
    model.graph.sparse_initializer.append(sparse(indices))
    tidy = tidied(model, "here")
    dense = numpy_helper.to_array(tidy.graph.initializer[1])
    assert dense.shape == (4, 6, 3, 3)
    assert (dense.reshape(-1)[[1, 215]] == [1.5, -2]).all()
    assert np.count_nonzero(dense) == 2
    assert not tidy.graph.sparse_initializer


@pytest.mark.parametrize(
    ("indices", "dims", "words"),
    [([1, 216], (4, 6, 3, 3), "is malformed"), ([1, 2], (1 << 15, 1 << 13), r"would take 2 GiB(.|\n)*here")],
)
def test_a_sparse_weight_that_cannot_be_written_out_is_refused(indices, dims, words):
    model = chain()
    model.graph.sparse_initializer.append(sparse(indices, dims))
    with pytest.raises(ReadError, match=words):
        tidied(model, "here")


@pytest.mark.parametrize("kind", [99, -1, 0, TensorProto.STRING])
@pytest.mark.parametrize("part", ["values", "indices"])
def test_a_sparse_weight_of_no_type_is_refused(part, kind):
    model, wrong = chain(), sparse([1, 215])
    getattr(wrong, part).data_type = kind
    model.graph.sparse_initializer.append(wrong)
    with pytest.raises(ReadError):
        tidied(model, "here")


@pytest.mark.parametrize("imported", ["", "ai.onnx"])
def test_the_long_name_of_the_own_domain_is_the_empty_one(imported):
    """In branches too; an import under the long name is one under the empty one."""
    model = chain()
    model.opset_import[0].domain = imported
    branch = helper.make_graph(
        [helper.make_node("Neg", [model.graph.node[0].output[0]], ["r"], domain="ai.onnx")],
        "branch",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))
    for node in model.graph.node:
        node.domain = "ai.onnx"
    before = copy_of(model)
    tidy = tidied(model, "here")
    assert {node.domain for node in tidy.graph.node} == {""}
    assert {node.domain for a in tidy.graph.node[-1].attribute for node in a.g.node} == {""}
    assert [o.domain for o in tidy.opset_import] == [""]
    assert model == before
