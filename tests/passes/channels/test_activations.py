"""What a layer reads is led back to where its values are computed."""

from __future__ import annotations

import pytest
from onnx_prune.passes.channels.activations import Activation, activations_read

NET = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 8, 8] x) => (float[1, 2, H, W] y)
    <float[6, 3, 1, 1] w1, float[4, 3, 1, 1] w3, float[2, {reads}, 1, 1] w2> {{
      a = Conv (x, w1)
      r = Relu (a)
      c = Conv (x, w3)
      {nodes}
      y = Conv (z, w2)
    }}
    """


def read_of(graphs, nodes, reads=6):
    """The activations of the last layer's input."""
    return activations_read(graphs.groups_of(graphs.parse(NET.format(nodes=nodes, reads=reads))).labelled)["z"]


@pytest.mark.parametrize(
    "nodes",
    [
        "z = MaxPool <kernel_shape = [2, 2]> (r)",
        "p = MaxPool <kernel_shape = [2, 2]> (r)\n z = Identity (p)",
        "p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r)\n z = GlobalMaxPool (p)",
    ],
)
def test_pools_and_moves_are_passed(nodes, graphs):
    assert read_of(graphs, nodes) == (Activation("r", 1, 4),)


def test_a_concatenation_has_an_activation_for_each_part(graphs):
    found = read_of(graphs, "s = Sigmoid (c)\n z = Concat <axis = 1> (r, s, r)", reads=16)
    assert sorted(a.tensor for a in found) == ["r", "s"]


def test_what_computes_new_values_is_not_passed(graphs):
    assert read_of(graphs, "p = MaxPool <kernel_shape = [2, 2]> (r)\n z = Tanh (p)") == (Activation("z", 1, 4),)


def test_the_image_itself_stands_for_what_reads_it(graphs):
    labelled = graphs.groups_of(graphs.parse(NET.format(nodes="z = Identity (r)", reads=6))).labelled
    assert activations_read(labelled)["x"] == (Activation("x", 1, 4),)
