"""Gradient steps on a few layers: towards the target, never away from it, and on nothing else."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_prune.runtime.torch.graph_module import GraphModule
from onnx_prune.runtime.torch.joint.fit import Steps, fit_together

RNG = np.random.default_rng(3)
X = RNG.normal(size=(256, 6)).astype(np.float32)
FIRST, SECOND = RNG.normal(size=(6, 4)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)
ONE = np.ones(1, np.float32)
TARGET = np.maximum(X @ FIRST, 0) @ SECOND


def module(first, second):
    nodes = [helper.make_node("MatMul", ["x", "W"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    nodes.append(helper.make_node("MatMul", ["b", "V"], ["y"]))
    held = [numpy_helper.from_array(first, "W"), numpy_helper.from_array(second, "V")]
    x, y = (helper.make_tensor_value_info(n, 1, [None, k]) for n, k in (("x", 6), ("y", 3)))
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    return GraphModule(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


@pytest.fixture
def off():
    return module(FIRST + 0.3 * RNG.normal(size=FIRST.shape).astype(np.float32), SECOND)


def test_the_error_on_samples_that_no_step_sees_falls(off):
    before, after = fit_together(off, {"W": ONE, "V": ONE}, {"x": X}, TARGET, Steps(2, epochs=20, rate=0.02))
    assert after < 0.3 * before


def test_only_what_is_named_moves(off):
    fit_together(off, {"W": ONE}, {"x": X}, TARGET, Steps(2, epochs=2, rate=0.02))
    stored = {t.name: numpy_helper.to_array(t) for t in off.to_model().graph.initializer}
    assert np.array_equal(stored["V"], SECOND)


def test_what_comes_no_nearer_stays(off):
    start = [p.detach().clone() for p in off.parameters()]
    before, after = fit_together(off, {"W": ONE, "V": ONE}, {"x": X}, TARGET, Steps(2, epochs=1, rate=50.0))
    assert after >= before
    assert all(bool((a == b).all()) for a, b in zip(start, off.parameters(), strict=True))


def test_the_same_seed_gives_the_same_weights():
    one, other = module(FIRST * 0.8, SECOND), module(FIRST * 0.8, SECOND)
    for each in (one, other):
        fit_together(each, {"W": ONE}, {"x": X}, TARGET, Steps(2, epochs=2, rate=0.01))
    assert one.to_model().SerializeToString() == other.to_model().SerializeToString()


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_a_handful_of_samples_is_enough_to_end_well(off, samples):
    before, after = fit_together(off, {"W": ONE}, {"x": X[:samples]}, TARGET[:samples], Steps(2, epochs=1, rate=0.01))
    assert np.isfinite([before, after]).all()


def test_a_model_of_a_fixed_batch_sees_whole_batches_alone(off):
    sizes = []
    own = off.forward
    off.forward = lambda x: (sizes.append(len(x)), own(x))[1]
    fit_together(off, {"W": ONE}, {"x": X[:250]}, TARGET[:250], Steps(2, epochs=1, rate=0.01, batch=16, fixed=True))
    assert set(sizes) == {16}
    assert onnx.checker.check_model(off.to_model()) is None
