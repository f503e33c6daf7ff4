"""Bodies, functions, interfaces and the other places in which ONNX keeps things."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.silence import silence
from onnx_prune.passes.graph.export import to_model


def cut_half(model, graphs, feeds=None):
    """Cut every second unit, prove it, and return the groups and the cut model."""
    groups = graphs.groups_of(model)
    removed = groups.removed_labels({g.name: range(1, g.units, 2) for g in groups.free})
    cut, twin = to_model(apply_removal(groups.labelled, removed)), to_model(silence(groups.labelled, removed))
    onnx.checker.check_model(cut, full_check=not cut.graph.sparse_initializer)  # inference does not know those
    feeds = graphs.random_feeds(model) if feeds is None else feeds
    assert graphs.difference(graphs.ort(cut, feeds), graphs.ort(twin, feeds)) < 2e-6
    return groups, cut


def dims(model):
    return {t.name: list(t.dims) for t in model.graph.initializer}


IF = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x, bool k) => (float[1, 2, 4, 4] y)
    <float[5, 3, 1, 1] w0, float[6, 5, 1, 1] w1, float[6] v, float[7, 6, 1, 1] w2, float[2, 7, 1, 1] w3> {
      b = Conv (x, w0)
      a = Conv (b, w1, v)
      z = If (k) <
        then_branch = yes () => (float[1, 6, 4, 4] t) { t = Relu (a) },
        else_branch = no () => (float[1, 6, 4, 4] e) { e = Neg (a) }
      >
      d = Conv (z, w2)
      y = Conv (d, w3)
    }
    """


@pytest.mark.parametrize("choice", [False, True])
def test_what_the_branches_of_if_capture_stays_and_the_rest_goes(choice, graphs):
    model = graphs.parse(IF)
    feeds = {"x": graphs.random_feeds(model)["x"], "k": np.asarray(choice)}
    groups, cut = cut_half(model, graphs, feeds)
    assert {g.units for g in groups.free} == {5, 7}
    reason = next(g.pinned for g in groups.groups if g.units == 6)
    assert reason == "it is read inside the body of If"
    assert dims(cut)["w1"] == [6, 3, 1, 1]


LOOP = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2, 3] x) => (float[2, 2] y)
    <float[3, 5] w0, float[5, 6] w1, float[6] v, float[6, 7] w2, float[7, 2] w3, int64 n = {65}, bool yes = {1}> {
      b = MatMul (x, w0)
      a = MatMul (b, w1)
      z = Loop (n, yes, a) <body = step (int64 i, bool go, float[2, 6] s) => (bool on, float[2, 6] t) {
        on = Identity (go)
        p = Add (s, v)
        t = Tanh (p)
      }>
      d = MatMul (z, w2)
      y = MatMul (d, w3)
    }
    """


def test_what_a_loop_carries_stays_and_the_rest_goes(graphs):
    groups, cut = cut_half(graphs.parse(LOOP), graphs)
    assert {g.units for g in groups.free} == {5, 7}
    assert dims(cut)["v"] == [6]
    assert dims(cut)["w2"] == [6, 4]


SCAN = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[4, 3] x) => (float[4, 2] y)
    <float[3, 5] w0, float[5, 6] w1, float[6] start, float[6, 7] w2, float[7, 2] w3> {
      b = MatMul (x, w0)
      a = MatMul (b, w1)
      last, z = Scan <num_scan_inputs = 1, body = step (float[6] s, float[6] e) => (float[6] t, float[6] o) {
        t = Add (s, e)
        o = Identity (t)
      }> (start, a)
      d = MatMul (z, w2)
      y = MatMul (d, w3)
    }
    """


def test_what_a_scan_runs_over_stays_and_the_rest_goes(graphs):
    groups, cut = cut_half(graphs.parse(SCAN), graphs)
    assert {g.units for g in groups.free} == {5, 7}
    assert dims(cut)["start"] == [6]


NESTED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2, 3] x, bool k) => (float[2, 2] y)
    <float[3, 5] w0, float[5, 6] w1, float[6, 7] w2, float[7, 2] w3> {
      b = MatMul (x, w0)
      a = MatMul (b, w1)
      z = If (k) <
        then_branch = yes () => (float[2, 6] t) {
          t = If (k) <
            then_branch = in () => (float[2, 6] u) { u = Relu (a) },
            else_branch = out () => (float[2, 6] w) { w = Neg (a) }
          >
        },
        else_branch = no () => (float[2, 6] e) { e = Identity (a) }
      >
      s = Add (z, a)
      d = MatMul (s, w2)
      y = MatMul (d, w3)
    }
    """


def test_bodies_inside_bodies_capture_too(graphs):
    model = graphs.parse(NESTED)
    feeds = {"x": graphs.random_feeds(model)["x"], "k": np.asarray(True)}
    groups, _ = cut_half(model, graphs, feeds)
    assert {g.units for g in groups.free} == {5, 7}


FUNCTION = """
    <ir_version: 8, opset_import: ["": 17, "local": 1]>
    g (float[2, 3] x) => (float[2, 2] y)
    <float[3, 5] w0, float[5, 2] w1> {
      a = local.gate (x, w0)
      y = MatMul (a, w1)
    }
    <domain: "local", opset_import: ["": 17]>
    gate (t, w) => (o) {
      h = MatMul (t, w)
      o = Relu (h)
    }
    """


def test_functions_are_inlined_and_pruned(graphs):
    groups, cut = cut_half(graphs.parse(FUNCTION), graphs)
    assert [g.units for g in groups.free] == [5]
    assert dims(cut) == {"w0": [3, 3], "w1": [3, 2]}


SEVERAL = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, H, W] left, float[N, 2, H, W] right) => (float[N, 2, H, W] y, float[N, 4, H, W] inner)
    <float[6, 3, 1, 1] w0, float[6, 2, 1, 1] w1, float[4, 6, 1, 1] w2, float[2, 4, 1, 1] w3> {
      a = Conv (left, w0)
      b = Conv (right, w1)
      s = Add (a, b)
      inner = Conv (s, w2)
      y = Conv (inner, w3)
    }
    """


def test_several_inputs_and_outputs_with_free_dimensions(graphs):
    """What an output shows stays; the result runs at any size."""
    model = graphs.parse(SEVERAL)
    groups, cut = cut_half(model, graphs)
    assert [g.units for g in groups.free] == [6]
    assert any(g.pinned == "graph output 'inner'" for g in groups.groups if g.units == 4)
    for n, h, w in ((1, 1, 1), (3, 5, 2)):
        feeds = {"left": np.ones((n, 3, h, w), np.float32), "right": np.ones((n, 2, h, w), np.float32)}
        assert [o.shape for o in graphs.ort(cut, feeds)] == [(n, 2, h, w), (n, 4, h, w)]


PLAIN = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[6, 3, 1, 1] w1, float[6] b1, float[2, 6, 1, 1] w2> {
      a = Conv (x, w1, b1)
      y = Conv (a, w2)
    }
    """


def test_an_initializer_that_is_a_graph_output_stays(graphs):
    model = graphs.parse(PLAIN)
    model.graph.output.append(helper.make_tensor_value_info("b1", TensorProto.FLOAT, [6]))
    groups = graphs.groups_of(model)
    assert not groups.free
    assert any(g.pinned == "graph output 'b1'" for g in groups.groups)


def test_initializers_that_are_inputs_too_are_declared_with_their_new_shape(graphs):
    """So wrote exporters before IR version 4."""
    model = graphs.parse(PLAIN)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    groups, cut = cut_half(model, graphs, {"x": graphs.random_feeds(model)["x"]})
    assert [g.units for g in groups.free] == [6]
    declared = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in cut.graph.input}
    assert declared == {"x": [1, 3, 4, 4], **dims(cut)}


def test_weights_in_constant_nodes_are_cut_in_place(graphs):
    model = graphs.parse(PLAIN)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    _, cut = cut_half(model, graphs)
    assert [list(n.attribute[0].t.dims) for n in cut.graph.node[:3]] == [[3, 3, 1, 1], [3], [2, 3, 1, 1]]


def test_sparse_initializers_are_cut_as_dense_ones(graphs):
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3] x) => (float[2, 2] y)
        <float[3, 5] w0, float[6, 7] w2, float[7, 2] w3> {
          b = MatMul (x, w0)
          a = MatMul (b, w1)
          d = MatMul (a, w2)
          y = MatMul (d, w3)
        }
        """
    model = graphs.parse(text)
    values = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w1")
    where = numpy_helper.from_array(np.array([0, 7, 20], np.int64), "w1_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [5, 6]))
    groups, cut = cut_half(model, graphs)
    assert [g.units for g in groups.free] == [5, 6, 7]
    assert not cut.graph.sparse_initializer
    assert {t.name: list(t.dims) for t in cut.graph.initializer}["w1"] == [3, 3]


def test_doc_strings_metadata_and_names_survive(graphs):
    model = graphs.parse(PLAIN)
    model.producer_name, model.doc_string, model.graph.doc_string = "someone", "the model", "the graph"
    helper.set_model_props(model, {"license": "free"})
    model.graph.node[0].name, model.graph.node[0].doc_string = "first", "a node"
    model.graph.node[0].metadata_props.add(key="namespace", value="stem")
    model.graph.input[0].doc_string = "an image"
    _, cut = cut_half(model, graphs)
    assert (cut.producer_name, cut.doc_string, cut.graph.doc_string) == ("someone", "the model", "the graph")
    assert list(cut.metadata_props) == list(model.metadata_props)
    assert list(cut.graph.input) == list(model.graph.input)
    assert cut.graph.node[0] == model.graph.node[0]
