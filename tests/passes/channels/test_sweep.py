"""What a rule says of labels is written down: equal ones, those that stay and why, who is silenced."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.passes.channels.sweep import POSITION, Sweep
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts

TEXT = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[8, 3, 1, 1] w1, float[8] b, float[8, 8, 1, 1] w2, float[2, 8, 1, 1] w3> {
      a = Conv (x, w1, b)
      c = Conv (a, w2, b)
      y = Conv (c, w3)
    }
    """


@pytest.fixture
def sweep(graphs):
    graph = load(graphs.parse(TEXT))
    return Sweep(graph, tensor_facts(graph))


def at(sweep, index, **outputs):
    """The sweep at a node, with labels set for the tensors that are made before it."""
    for name, labels in outputs.items():
        sweep.labelled.axes[name] = (sweep.fixed(1), labels, sweep.fixed(4), sweep.fixed(4))
    sweep.begin(index)
    return sweep


def test_labels_are_new_each_time_and_positions_are_none(sweep):
    first, second = sweep.fresh(3), sweep.fresh(2)
    assert [*first.tolist(), *second.tolist()] == [0, 1, 2, 3, 4]
    assert sweep.labelled.count == 5
    assert sweep.fixed(3).tolist() == [POSITION] * 3


def test_a_tie_leaves_out_what_is_equal_already(sweep):
    a, b = sweep.fresh(3), sweep.fresh(3)
    sweep.tie(a, a)
    assert not sweep.labelled.ties
    sweep.tie(a, np.array([a[0], b[1], b[2]]))
    ((first, second),) = sweep.labelled.ties
    assert (first.tolist(), second.tolist()) == (a[1:].tolist(), b[1:].tolist())


def test_what_is_tied_to_a_position_stays_with_that_reason(sweep):
    a = sweep.fresh(3)
    image = sweep.labelled.axes["x"][1]
    sweep.tie(a, np.array([POSITION, a[1], image[0]]))
    sweep.tie(image, a)
    reasons = {}
    for labels, reason in sweep.labelled.pins:
        for label in labels.tolist():
            reasons.setdefault(label, reason)
    assert reasons == {
        0: "it meets positions (batch or space), which are not channels",
        1: "graph input 'x'",
        2: "graph input 'x'",
    }
    assert not sweep.labelled.ties


def test_what_stays_says_which_operator_wants_it(sweep):
    at(sweep, 0).keep(sweep.fresh(2), "counts its entries")
    ((labels, reason),) = sweep.labelled.pins
    assert (labels.tolist(), reason) == ([0, 1], "Conv counts its entries")
    sweep.keep(sweep.fixed(3), "and nothing of positions")
    assert len(sweep.labelled.pins) == 1


def test_a_coupling_pins_unless_it_is_let_go(graphs):
    graph = load(graphs.parse(TEXT))
    for inexact in (False, True):
        sweep = at(Sweep(graph, tensor_facts(graph), inexact=inexact), 1)
        sweep.couple(sweep.fresh(2), "takes the mean")
        assert bool(sweep.labelled.pins) is not inexact
        assert bool(sweep.labelled.coupled) is inexact


def test_a_constant_has_the_same_labels_each_time_and_a_shared_vector_others_for_each_reader(sweep):
    a = sweep.fresh(8)
    weight, bias = at(sweep, 0).axes(1), sweep.axes(2)
    assert sweep.axes(1) is weight
    assert [len(axis) for axis in weight] == [8, 3, 1, 1]
    assert (weight[2] == POSITION).all()
    other = at(sweep, 1, a=a).axes(2)
    assert set(other[0].tolist()).isdisjoint(bias[0].tolist())
    assert {key for key in sweep.labelled.constants if key[0] == "b"} == {("b", "a"), ("b", "c")}


def test_a_contraction_ties_silences_the_weight_and_is_a_consumer(sweep):
    a = sweep.fresh(8)
    at(sweep, 1, a=a).contract((0, 1), (1, 1))
    (consumer,) = sweep.labelled.consumers
    weight = sweep.axes(1)[1]
    assert (consumer.node, consumer.data, consumer.weight) == (1, "a", "w2")
    assert consumer.labels is a
    assert sweep.labelled.consumed == [weight]
    ((first, second),) = sweep.labelled.ties
    assert (first.tolist(), second.tolist()) == (a.tolist(), weight.tolist())
    assert not sweep.labelled.masks


def test_of_two_activations_one_is_masked(sweep):
    a, c = sweep.fresh(8), sweep.fresh(8)
    at(sweep, 2, a=a, c=c)
    sweep.node.inputs[1] = sweep.graph.gs.tensors()["a"]
    sweep.contract((0, 1), (1, 1))
    assert not sweep.labelled.consumers
    ((node, position, axis),) = [(m.node, m.input, m.axis) for m in sweep.labelled.masks]
    assert (node, position, axis) == (2, 0, 1)


def test_of_an_unknown_node_all_that_enters_stays_and_what_leaves_are_no_channels(sweep):
    a = sweep.fresh(8)
    at(sweep, 1, a=a).opaque("operator Acme has no rule")
    pinned = {label for labels, _ in sweep.labelled.pins for label in labels.tolist()}
    assert pinned >= set(a.tolist())
    assert pinned >= {label for axis in (*sweep.axes(1), *sweep.axes(2)) for label in axis.tolist() if label >= 0}
    assert all((axis < 0).all() for axis in sweep.labelled.axes["c"])
    sweep.tie(sweep.fresh(1), sweep.labelled.axes["c"][1][:1])
    assert sweep.labelled.pins[-1][1] == "it meets the result of Conv (operator Acme has no rule)"


def test_two_readers_agree_on_how_zero_is_written_or_it_is_said(sweep):
    at(sweep, 0)
    assert sweep.zero(1, np.array(3))
    assert sweep.zero(1, np.array(3))
    assert not sweep.zero(1, np.array(4))
