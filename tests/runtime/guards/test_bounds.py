"""A run that wants more memory than there is fails as one that cannot be read, and the limit is gone afterwards."""

from __future__ import annotations

import sys

import numpy as np
import onnx_prune
import pytest
from onnx import helper, numpy_helper, parser
from onnx_prune.passes.errors import BoundError, ReadError
from onnx_prune.runtime import session as session_module
from onnx_prune.runtime.guards import bounds
from onnx_prune.runtime.session import open_session

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is available")


@linux
def test_a_run_that_is_too_large_for_the_machine_ends_with_an_error(monkeypatch):
    import resource

    monkeypatch.setattr(bounds, "_available", lambda: 1 << 20)
    before = resource.getrlimit(resource.RLIMIT_AS)
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (int64[1] n) => (float s) { z = ConstantOfShape (n)  s = ReduceSum <keepdims = 0> (z) }""")
    session = open_session(model)
    with pytest.raises(ReadError, match="more memory than there is"):
        session.run({"n": np.array([1 << 31])})
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert session.run({"n": np.array([1 << 10])})["s"] == 0


@linux
def test_what_is_available_is_read_from_the_system():
    assert 1 << 20 < bounds._available() < 1 << 50
    assert bounds._taken() > 1 << 20


def test_where_the_system_says_nothing_there_is_no_limit(monkeypatch):
    monkeypatch.setattr(bounds, "_available", lambda: 0)
    with bounds.bounded_memory():
        np.ones(1 << 20)


@linux
def test_a_loop_that_doubles_ends_the_analysis_long_before_memory_does(monkeypatch):
    monkeypatch.setattr(bounds, "_ANYWAY", 1 << 28)
    body = parser.parse_graph("""
    body (int64 i, bool go, float[M] a) => (bool on, float[K] b)
    { on = Identity (go)  b = Concat <axis = 0> (a, a) }""")
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[16] x, int64 n) => (float s)
    { c = Constant <value_int = 60> ()  k = Add (n, c)  s = ReduceSum <keepdims = 0> (x) }""")
    loop = helper.make_node("Loop", ["k", "", "x"], ["d"], body=body)
    model.graph.node.insert(2, loop)
    model.graph.node[3].input[0] = "d"
    with pytest.raises(BoundError, match=r"takes more than 0\.25 GiB") as caught:
        onnx_prune.inspect(model)
    assert "may grow" in str(caught.value)


@pytest.mark.parametrize("first", ["1", "n"])
@pytest.mark.parametrize("counted", ["c = Mul (half, half)", "k = ReduceSum <keepdims = 0> (x)  i = Cast <to = 7> (k)"])
def test_a_loop_whose_count_is_computed_inside_a_branch_is_tried_once(monkeypatch, first, counted):
    """It ran for the longest time of a run again and again: every other input was tried as well."""
    monkeypatch.setattr(bounds, "LONGEST_RUN", 0.5)
    late = []
    right = session_module.bounded_time

    def counting(*given):
        try:
            return right(*given)
        except BoundError:
            late.append(given)
            raise

    monkeypatch.setattr(session_module, "bounded_time", counting)
    body = parser.parse_graph(f"""
    body (int64 r, bool go, float[{first}, 4] v) => (bool more, float[{first}, 4] w)
    {{ more = Identity (go)  w = Add (v, v) }}""")
    count = counted if "half" in counted else f"{counted}  z = Sub (i, i)  b = Mul (half, half)  c = Add (b, z)"
    branch = parser.parse_graph(f"branch () => (float[{first}, 4] y0) {{ {count}  y0 = Identity (h) }}")
    branch.node[-1].CopyFrom(helper.make_node("Loop", ["c", "yes", "h"], ["y0"], body=body))
    other = parser.parse_graph(f"other () => (float[{first}, 4] y1) {{ y1 = Identity (h) }}")
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[{first}, 3, 8, 8] x) => (float[{first}, 4] y)
    <int64 half = {{2147483648}}, bool yes = {{1}}, float low = {{-1}}>
    {{
      a = Conv (x, w0)
      p = ReduceMean <axes = [2, 3], keepdims = 0> (a)
      h = MatMul (p, w1)
      s = ReduceSum <keepdims = 0> (h)
      t = Abs (s)
      take = Greater (t, low)
      y = Identity (h)
    }}""")
    rng = np.random.default_rng(0)
    for name, shape in (("w0", (8, 3, 3, 3)), ("w1", (8, 4))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.node[-1].CopyFrom(helper.make_node("If", ["take"], ["y"], then_branch=branch, else_branch=other))
    with pytest.raises(BoundError, match=r"one run of the model takes more than 0\.5 s"):
        onnx_prune.prune(model, calibration="none", measure=False)
    assert len(late) == 1


def test_a_run_may_take_more_with_more_weights_and_input(monkeypatch):
    monkeypatch.setattr(bounds, "_available", lambda: 1 << 40)
    most = bounds.most_memory(0, 0)
    assert most is not None
    assert bounds.most_memory(1 << 30, 1 << 20) == most + (9 << 30)
    monkeypatch.setattr(bounds, "_available", lambda: 1 << 30)
    assert bounds.most_memory(0, 0) is None
