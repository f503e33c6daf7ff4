"""A deliberately wrong cut ends with exit code 5, also where the outputs are blind; a right one passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.errors import ProofError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.proof.prove import prove_cut

# What stands behind the logits `l` [n, 6]: each shows little or nothing of them.
HEADS = {
    "plain": ("float[n, 6] y", "y = Identity (l)"),
    "logarithm of negative numbers": ("float[n, 6] y", "a = Abs (l)\n b = Neg (a)\n y = Log (b)"),
    "square root of negative numbers": ("float[n, 6] y", "a = Abs (l)\n b = Neg (a)\n y = Sqrt (b)"),
    "top k indices": ("int64[n, 2] y", "best, y = TopK <axis = 1> (l, two)"),
    "argmax": ("int64[n, 1] y", "y = ArgMax <axis = 1> (l)"),
    "a threshold never met": ("bool[n, 6] y", "y = Greater (l, huge)"),
    "where on a threshold": ("float[n, 6] y", "c = Greater (l, huge)\n y = Where (c, l, one)"),
    "saturated sigmoid": ("float[n, 6] y", "a = Add (l, huge)\n y = Sigmoid (a)"),
    "constant": ("float[n, 6] y", "y = Mul (l, none)"),
    "a mask of -1e9": ("float[n, 6] y", "y = Add (l, low)"),
    "rounded to integers": ("int32[n, 6] y", "a = Mul (l, tiny)\n y = Cast <to = 6> (a)"),
    "coordinates and probabilities": (
        "float[n, 12] y",
        "a = Mul (l, tiny)\n b = Add (l, huge)\n y = Concat <axis=1> (a, b)",
    ),
}
CONSTANTS = {
    "two": np.array([2]),
    "huge": np.float32(1e4),
    "one": np.float32(1),
    "none": np.float32(0),
    "low": np.array([-1e9, 0, 0, -1e9, 0, 0], np.float32),
    "tiny": np.float32(1e-4),
}


def network(head: str) -> onnx.ModelProto:
    """A residual stem, a depthwise convolution, a joined pair and a classifier, with biases and a normalisation."""
    output, nodes = HEADS[head]
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 3, 9, 9] x) => ({output})
    {{
      s0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
      s = Relu (s0)
      c1 = Conv <pads = [1, 1, 1, 1]> (s, w1, b1)
      n1 = BatchNormalization (c1, gamma, beta, mean, var)
      r1 = Relu (n1)
      d = Conv <pads = [1, 1, 1, 1], group = 10> (r1, wd, bd)
      c2 = Conv (d, w2, b2)
      t = Add (s, c2)
      u = Relu (t)
      p = Conv (u, w3, b3)
      q = Conv (u, w4, b4)
      j = Concat <axis = 1> (p, q)
      v = LeakyRelu (j)
      f = GlobalAveragePool (v)
      g0 = Flatten (f)
      l = Gemm (g0, w5, b5)
      {nodes}
    }}""")
    shapes = {
        "w0": (8, 3, 3, 3), "b0": (8,), "w1": (10, 8, 3, 3), "b1": (10,), "gamma": (10,), "beta": (10,), "mean": (10,),
        "wd": (10, 1, 3, 3), "bd": (10,), "w2": (8, 10, 1, 1), "b2": (8,), "w3": (7, 8, 1, 1), "b3": (7,),
        "w4": (6, 8, 1, 1), "b4": (6,), "w5": (13, 6), "b5": (6,),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape) * 0.4 for name, shape in shapes.items()}
    values["var"] = rng.uniform(0.5, 2, 10)
    weights = {name: array.astype(np.float32) for name, array in values.items()}
    used = {name for node in model.graph.node for name in node.input}
    weights |= {name: array for name, array in CONSTANTS.items() if name in used}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    return model


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in float16."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def _edit(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    def mutate(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(values).astype(values.dtype)), name))

    return mutate


def _node(output: str, change: Callable[[onnx.NodeProto], object]) -> Callable[[onnx.ModelProto], None]:
    return lambda model: change(next(n for n in model.graph.node if output in n.output)) and None


def _attribute(**values: object) -> Callable[[onnx.NodeProto], object]:
    def change(node: onnx.NodeProto) -> None:
        kept = [a for a in node.attribute if a.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in values.items())])

    return change


def _swap(node: onnx.NodeProto) -> None:
    node.input[0], node.input[1] = node.input[1], node.input[0]


def _read(position: int, name: str) -> Callable[[onnx.NodeProto], object]:
    return lambda node: node.input.__setitem__(position, name)


def _first_two(a: np.ndarray) -> np.ndarray:
    return np.concatenate([a[1::-1], a[2:]])


def _rolls(name: str, axis: int = 0) -> dict[str, Callable[[onnx.ModelProto], None]]:
    return {f"{name} rolled along {axis}": _edit(name, lambda a: np.roll(a, 1, axis))}


MUTATIONS: dict[str, Callable[[onnx.ModelProto], None]] = {
    **{k: v for name in ("w0", "w1", "w2", "w3", "w4", "w5", "wd") for k, v in _rolls(name).items()},
    **{k: v for name in ("w1", "w2", "w3", "w4", "w5") for k, v in _rolls(name, 1).items()},
    **{k: v for name in ("b0", "b1", "b2", "b3", "b4", "b5", "bd") for k, v in _rolls(name).items()},
    **{k: v for name in ("gamma", "beta", "mean", "var") for k, v in _rolls(name).items()},
    **{f"{name} dropped": _edit(name, np.zeros_like) for name in ("b0", "b1", "b2", "b3", "bd", "b5", "beta")},
    "two rows of w1 swapped": _edit("w1", _first_two),
    "two rows of wd swapped": _edit("wd", _first_two),
    "two filters of w3 swapped": _edit("w3", _first_two),
    "w2 turned around": _edit("w2", lambda a: a[:, ::-1]),
    "one weight of w1 lost": _edit("w1", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 4, 0, a)),
    "w5 one percent too large": _edit("w5", lambda a: a * 1.01),
    "one bias off": _edit("b2", lambda a: a + 0.05 * (np.arange(a.size) == 0)),
    "one kernel mirrored": _edit("w0", lambda a: a[..., ::-1]),
    "the joined swapped": _node("j", _swap),
    "another input of the sum": _node("t", _read(0, "c2")),
    "a stream taken before its activation": _node("c1", _read(0, "s0")),
    "epsilon lost": _node("n1", _attribute(epsilon=0.1)),
    "pads moved": _node("c1", _attribute(pads=[0, 0, 2, 2])),
    "another slope": _node("v", _attribute(alpha=0.02)),
}


def prove(model: onnx.ModelProto, mutate: Callable[[onnx.ModelProto], None] | None = None):
    analysis = analyse(model)
    assert len(analysis.groups.free) >= 4
    removed = analysis.groups.removed_labels({g.name: range(0, g.units, 3) for g in analysis.groups.free})
    cut = to_model(apply_removal(analysis.groups.labelled, removed))
    if mutate is not None:
        mutate(cut)
    return prove_cut(analysis.groups, removed, cut, analysis.feeds)


@pytest.mark.parametrize("head", HEADS)
def test_a_right_cut_passes_and_says_how_much_was_seen(head):
    proof = prove(network(head))
    seen, cut = proof.tensors
    assert seen == cut > 10
    assert not proof.unseen
    assert proof.inner < 1e-4


def test_a_right_cut_in_half_precision_passes():
    proof = prove(half(network("plain")))
    assert proof.tensors[0] == proof.tensors[1]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_cut_is_refused_where_an_output_is_an_index(mutation):
    with pytest.raises(ProofError):
        prove(network("argmax"), MUTATIONS[mutation])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("mutation", ["w1 rolled along 1", "b2 dropped", "the joined swapped"])
def test_a_wrong_cut_is_refused_behind_every_head(head, mutation):
    with pytest.raises(ProofError):
        prove(network(head), MUTATIONS[mutation])


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_wrong_cut_is_refused_behind_every_head(head, mutation):
    with pytest.raises(ProofError):
        prove(network(head), MUTATIONS[mutation])


@pytest.mark.parametrize("mutation", ["w1 rolled along 1", "b2 dropped", "the joined swapped", "wd rolled along 0"])
def test_a_wrong_cut_in_half_precision_is_refused(mutation):
    with pytest.raises(ProofError):
        prove(half(network("plain")), MUTATIONS[mutation])


def test_the_outputs_alone_would_not_see_it(monkeypatch):
    monkeypatch.setattr("onnx_prune.runtime.proof.prove.watched", lambda *_: [])
    prove(network("a threshold never met"), MUTATIONS["w1 rolled along 1"])


def test_where_nothing_varies_nothing_is_trusted():
    model = network("plain")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    proof = prove(model)
    assert len(proof.unseen) >= 4
    assert proof.tensors[0] == 0
