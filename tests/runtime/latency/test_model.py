"""The latency of a network at any widths: nodes are found again in what ONNX Runtime runs, and the sum is the whole."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_prune.models.resnet import resnet_cifar
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.latency import model as model_module
from onnx_prune.runtime.latency import pieces as subject
from onnx_prune.runtime.latency.blocked import block_size
from onnx_prune.runtime.latency.model import Place, at_widths, measure_table, measured, timed_nodes
from onnx_prune.runtime.latency.optimised import match
from onnx_prune.runtime.latency.pieces import Bench, pieces, time_pieces
from onnx_prune.runtime.latency.profile import NodeTime, named, profile

NET = """
<ir_version: 8, opset_import: ["": 17]>
g (float[1, 3, 32, 32] x) => (float[1, 10] y)
<float[64, 3, 3, 3] w1, float[64, 1, 3, 3] wd, float[96, 64, 1, 1] w2, float[10, 96] w3> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  r = Relu (a)
  d = Conv <group = 64, pads = [1, 1, 1, 1]> (r, wd)
  s = Sigmoid (d)
  b = Conv (s, w2)
  t = Tanh (b)
  p = GlobalAveragePool (t)
  f = Flatten (p)
  y = Gemm <transB = 1> (f, w3)
}
"""


def filled(text):
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for value in model.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), value.name))
    return analyse(model)


@pytest.fixture(scope="module")
def net():
    return filled(NET)


def test_every_node_that_works_has_a_piece_that_follows_its_widths(net):
    found = pieces(net.groups)
    assert [(piece.op, piece.whole) for piece in found.values()] == [
        ("Conv", (3, 64)),
        ("Conv", (1, 64)),
        ("Conv", (64, 96)),
        ("Gemm", (96, 10)),
    ]
    depthwise, pointwise, last = list(found.values())[1:]
    assert [depthwise.shape(o, (1, 16)) for o in depthwise.operands] == [(1, 16, 32, 32), (16, 1, 3, 3)]
    assert depthwise.attributes_at((1, 16))["group"] == 16
    assert [pointwise.shape(o, (8, 24)) for o in pointwise.operands] == [(1, 8, 32, 32), (24, 8, 1, 1)]
    assert [last.shape(o, (5, 10)) for o in last.operands] == [(1, 5), (10, 5)]


def test_optimised_nodes_are_found_again_and_nothing_is_counted_twice(net):
    model = named(net.graph.source)
    nodes = profile(model, net.feeds, seconds=0.05, device="cpu")
    matched = match(net.groups, model, nodes)
    assert sum(one.piece is not None for one in matched) == 4
    assert len({one.piece for one in matched if one.piece is not None}) == 4
    by_piece = {one.piece.whole: one for one in matched if one.piece is not None}
    assert by_piece[64, 96].reads.full == 64
    assert by_piece[64, 96].writes.full == 96
    assert by_piece[96, 10].writes is None, "the logits stay"
    assert all(node.ms > 0 for node in nodes)


def test_layers_of_half_precision_are_found_again(net):
    model = onnx.ModelProto()
    model.CopyFrom(net.graph.source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    half = analyse(model)
    source = named(half.graph.source)
    matched = match(half.groups, source, profile(source, half.feeds, seconds=0.05, device="cpu"))
    assert sorted(one.piece.whole for one in matched if one.piece is not None) == [(1, 64), (3, 64), (64, 96), (96, 10)]
    assert sum(one.writes is not None for one in matched if one.piece is not None) == 3
    piece = pieces(half.groups)[4]
    times, _ = time_pieces({piece: [(16, 16), (64, 96)]}, Bench(17, 1 << 20, "cpu"))
    assert times[piece][64, 96] > times[piece][16, 16] > 0


def test_quantised_layers_are_found_by_the_names_of_their_nodes(net):
    source = named(net.graph.source)
    node = next(node for node in source.graph.node if node.output[0] == "b")
    time = NodeTime(f"{node.name}_token_7", "QLinearConv", 1.0, (), ("unknown",), weighted=True)
    (one,) = match(net.groups, source, [time])
    assert one.writes.full == 96


def test_layers_that_are_alike_may_be_held_on_different_sides():
    names = "xabcy"
    nodes = "\n".join(f"{b} = Conv <pads = [1, 1, 1, 1]> ({a}, w{b})" for a, b in itertools.pairwise(names))
    weights = ", ".join(f"float[32, 32, 3, 3] w{name}" for name in names[1:])
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[1, 32, 16, 16] x) => (float[1, 32, 16, 16] y) <{weights}> {{ {nodes} }}"""
    model = parser.parse_model(text)
    for name in names[1:]:
        model.graph.initializer.append(numpy_helper.from_array(np.ones((32, 32, 3, 3), np.float32), f"w{name}"))
    analysis = analyse(model)
    table = timed_nodes(analysis, Place("cpu"), seconds=5.0)
    ends = [node for node in table.nodes if node.op.endswith("Conv")]
    assert [len(node.reads.scale.grid) > 2 for node in ends] == [False, True, True, True]
    assert [len(node.writes.scale.grid) > 2 for node in ends] == [True, True, True, False]
    assert table.milliseconds(np.where(analysis.cost.free, 16, 32)) < table.milliseconds(table.units)


def test_pieces_are_timed_at_every_width_that_is_asked_for(net):
    piece = pieces(net.groups)[4]
    bench = Bench(net.graph.opset, 1 << 20, "cpu")
    told = []
    times, _ = time_pieces({piece: [(16, 16), (64, 96)]}, bench, progress=told.append)
    assert times[piece][64, 96] > times[piece][16, 16] > 0
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] == 1


def test_pieces_are_timed_again_until_two_turns_agree(net, monkeypatch):
    piece, takes = pieces(net.groups)[4], iter([9.0, 5.0, 5.1, 4.0])
    log = []

    def fake(model, feeds, **_):
        log.append(next(takes))
        return (NodeTime("piece0", "Conv", log[-1], (), (), True),)

    monkeypatch.setattr(subject, "profile", fake)
    assert time_pieces({piece: [(64, 96)]}, Bench(17, 1 << 20)) == ({piece: {(64, 96): 5.0}}, {piece})
    assert log == [9.0, 5.0, 5.1]


def test_nothing_is_timed_when_there_is_no_time_left(net):
    piece = pieces(net.groups)[4]
    assert time_pieces({piece: [(64, 96)]}, Bench(17, 1 << 20), until=0.0) == ({}, set())


def test_the_sum_of_the_nodes_meets_the_whole_network_and_narrow_ones_take_less():
    analysis = analyse(resnet_cifar(20))
    place = Place("cpu")
    table = measure_table(analysis, place)
    assert len(table.nodes) > 20
    half = np.where(analysis.cost.free & (analysis.cost.units >= 32), analysis.cost.units // 2, analysis.cost.units)
    predicted = table.milliseconds(half) / table.milliseconds(table.units)
    assert predicted < 0.95

    def met():
        whole, cut = (timing.compared for timing in measured(analysis, [half], place, seconds=1.0))
        return abs(table.milliseconds(table.units) / whole - 1) < 0.4 and abs(predicted - cut / whole) < 0.25

    assert any(met() for _ in range(4)), "others may spoil one measurement, not four"


def test_a_network_at_widths_has_these_widths(net):
    kept = np.maximum(net.cost.units // 2, 1)
    kept = np.where(net.cost.free, kept, net.cost.units)
    dims = {t.name: tuple(t.dims) for t in at_widths(net, kept).graph.initializer}
    assert dims["w1"] == (32, 3, 3, 3)
    assert dims["w2"] == (48, 32, 1, 1)


def test_the_block_is_one_that_onnx_runtime_has():
    assert block_size("cpu") in (1, 4, 8, 16)


@pytest.mark.gpu
def test_cuda_is_measured_by_the_same_code(net):
    table = measure_table(net, Place("cuda"))
    assert table.milliseconds(table.units) > 0


GROUPED = """
<ir_version: 8, opset_import: ["": 17]>
g (float[1, 3, 16, 16] x) => (float[1, 10] y)
<float[64, 3, 3, 3] w1, float[64, 32, 3, 3] wg, float[48, 64, 1, 1] w2, float[10, 48] w3> {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  r = Relu (a)
  d = Conv <group = 2, pads = [1, 1, 1, 1]> (r, wg)
  s = Relu (d)
  b = Conv (s, w2)
  p = GlobalAveragePool (b)
  f = Flatten (p)
  y = Gemm <transB = 1> (f, w3)
}
"""


def test_a_convolution_whose_groups_become_narrower_keeps_its_groups():
    piece = list(pieces(filled(GROUPED).groups).values())[1]
    assert piece.whole == (64, 64)
    assert piece.narrowing == 2
    assert [piece.shape(o, (32, 48)) for o in piece.operands] == [(1, 32, 16, 16), (48, 16, 3, 3)]
    assert piece.attributes_at((32, 48))["group"] == 2


def test_groups_that_are_no_whole_blocks_are_slower_and_no_width_is_chosen_there(monkeypatch):
    """Half of a block less in each group costs the blocked layout: the table knows, whatever the machine's block."""

    def timed(wanted, bench, **ignored):
        def ms(piece, widths):
            plain = piece.narrowing > 1 and any(w % (16 * piece.narrowing) for w in widths)
            return widths[0] * widths[1] * (3e-6 if plain else 1e-6)

        return {piece: {widths: ms(piece, widths) for widths in pairs} for piece, pairs in wanted.items()}, set(wanted)

    monkeypatch.setattr(model_module, "time_pieces", timed)
    monkeypatch.setattr(model_module, "block_size", lambda device: 16)
    monkeypatch.setattr(model_module, "cached", lambda wanted, bench: {})
    monkeypatch.setattr(model_module, "keep", lambda times, bench, settled: times)
    table = timed_nodes(filled(GROUPED), Place("cpu", 1))
    group = next(i for i, units in enumerate(table.units) if units == 32)  # positions in the two groups
    blocked, plain = table.change(table.units, group, np.array([16, 24]))
    assert blocked < 0 < plain
    assert 24 not in table.steps(group)
    assert 16 in table.steps(group)
