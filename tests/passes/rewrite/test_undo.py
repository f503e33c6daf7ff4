"""What is done to a graph is taken back."""

import contextlib

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import parser
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import Graph, load, set_constant
from onnx_prune.passes.rewrite.undo import undone

TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y)
<float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}> {
  scale = Constant <value = float[1] {2}> ()
  c = Conv (x, w)
  y = Mul (c, scale)
}
"""


def graph() -> Graph:
    return load(parser.parse_model(TEXT))


def everything(graph: Graph) -> bytes:
    return to_model(graph).SerializeToString(deterministic=True)


def values(graph: Graph) -> None:
    set_constant(graph.gs.tensors()["w"], np.zeros((2, 3, 1, 1), np.float32))
    set_constant(graph.gs.tensors()["scale"], np.zeros(1, np.float32))


def a_bias(graph: Graph) -> None:
    next(n for n in graph.gs.nodes if n.op == "Conv").inputs.append(gs.Constant("b", np.ones(2, np.float32)))


def a_node(graph: Graph) -> None:
    node = next(n for n in graph.gs.nodes if n.op == "Mul")
    between = gs.Variable("between")
    graph.gs.nodes.insert(1, gs.Node("Relu", inputs=[node.inputs[0]], outputs=[between]))
    node.inputs[0] = between


def a_node_behind(graph: Graph) -> None:
    node = next(n for n in graph.gs.nodes if n.op == "Conv")
    output, narrow = node.outputs[0], gs.Variable("narrow")
    node.outputs[0] = narrow
    graph.gs.nodes.append(gs.Node("Relu", inputs=[narrow], outputs=[output]))


@pytest.mark.parametrize("edit", [values, a_bias, a_node, a_node_behind])
def test_edits_are_seen_inside_and_gone_behind(edit):
    edited = graph()
    before = everything(edited)
    with undone(edited) as working:
        edit(working)
        assert everything(working) != before
    assert everything(edited) == before


def test_they_are_taken_back_where_an_error_ends_it():
    edited = graph()
    before = everything(edited)
    with contextlib.suppress(ZeroDivisionError), undone(edited) as working:
        values(working)
        raise ZeroDivisionError
    assert everything(edited) == before


def test_readers_of_tensors_are_put_back_as_well():
    edited = graph()
    with undone(edited) as working:
        a_node(working)
    conv = next(n for n in edited.gs.nodes if n.op == "Conv")
    assert [reader.op for reader in conv.outputs[0].outputs] == ["Mul"]
