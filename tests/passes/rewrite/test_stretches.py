"""Where a network can be fitted piece by piece."""

import onnx
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.rewrite.stretches import stretches

_HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
_W = "float[4,4,1,1] a, float[4,4,1,1] b, float[4,4,1,1] c, float[4,4,1,1] d"
RESIDUAL = f"""{_HEAD}
g (float[N,4,8,8] x) => (float[N,4,1,1] y) <{_W}> {{
  s = Conv(x, a)
  r = Relu(s)
  t = Conv(r, b)
  u = Relu(t)
  v = Conv(u, c)
  w = Add(v, r)
  q = Relu(w)
  p = GlobalAveragePool(q)
  y = Conv(p, d)
}}
"""
SIZES = dict.fromkeys("xsrtuvwq", 256) | {"p": 4, "y": 4}


def graph(text):
    model = onnx.parser.parse_model(text)
    for name in "abcd":
        if name not in {t.name for t in model.graph.initializer}:
            model.graph.initializer.append(onnx.helper.make_tensor(name, 1, [4, 4, 1, 1], [0.5] * 16))
    return load(model)


def test_a_stretch_ends_behind_a_block_in_front_of_the_pool_and_the_last_with_the_output():
    found = stretches(graph(RESIDUAL), {"s", "t", "v", "y"}, SIZES, 2)
    assert found == [("q", ("s", "t", "v")), ("y", ("y",))]


def test_a_block_is_one_stretch_where_one_layer_is_enough():
    found = stretches(graph(RESIDUAL), {"s", "t", "v", "y"}, SIZES, 1)
    assert found == [("r", ("s",)), ("q", ("t", "v")), ("y", ("y",))]


def test_a_place_where_a_shortcut_passes_by_is_no_end():
    assert all(part.end not in "tuv" for part in stretches(graph(RESIDUAL), {"s", "t", "v", "y"}, SIZES, 1))


def test_what_comes_after_the_last_place_of_several_outputs_is_in_none():
    text = RESIDUAL.replace("(float[N,4,1,1] y)", "(float[N,4,1,1] y, float[N,4,8,8] q)")
    assert stretches(graph(text), {"s", "t", "v", "y"}, SIZES, 2) == [("q", ("s", "t", "v"))]


def test_what_follows_from_constants_alone_passes_by_no_place():
    text = RESIDUAL.replace("s = Conv(x, a)", "k = Relu(a)\n  s = Conv(x, a)").replace("Conv(p, d)", "Conv(p, k)")
    assert [part.end for part in stretches(graph(text), {"s", "t", "v", "y"}, SIZES, 2)] == ["q", "y"]
