"""Models to fuzz with: small networks of several kinds, and changes of one field of their message at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from ...models import digits_model

Rng = np.random.Generator
_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63), 2**63 - 1)


def mutated(model: onnx.ModelProto, rng: Rng) -> onnx.ModelProto:
    """The model with one to three fields of its message changed, so that it still parses."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for _ in range(int(rng.integers(1, 4))):
        _Change(copy, rng).any()
    return copy


class _Change:
    """One field of a model's message is changed; each method is a kind of change."""

    def __init__(self, model: onnx.ModelProto, rng: Rng) -> None:
        self.model, self.graph, self.rng = model, model.graph, rng

    def any(self) -> None:
        often = [self.ends, self.attribute, self.sizes, self.whole_weight, self.numbers, self.declared]
        seldom = [self.operator, self.weight_type, self.order, self.opset, self.output]
        self._pick([*often, *often, *seldom])()

    def ends(self) -> None:
        node = self._pick(self.graph.node)
        ends = node.input if self.rng.random() < 0.7 else node.output
        kind = self.rng.random()
        if ends and kind < 0.5:
            ends[int(self.rng.integers(len(ends)))] = self._name()
        elif ends and kind < 0.8:
            ends.pop()
        else:
            ends.append(self._name())

    def attribute(self) -> None:
        node = self._pick([n for n in self.graph.node if n.attribute] or self.graph.node)
        if not node.attribute or self.rng.random() < 0.15:
            name = self._pick(["axis", "group", "pads", "axes"])
            node.attribute.append(onnx.helper.make_attribute(name, [self._number()]))
            return
        chosen = self._pick(node.attribute)
        if chosen.ints and self.rng.random() < 0.8:
            chosen.ints[int(self.rng.integers(len(chosen.ints)))] = self._number()
        elif chosen.type == onnx.AttributeProto.INT:
            chosen.i = self._number()
        elif self.rng.random() < 0.3:
            chosen.type = int(self.rng.integers(0, 15))
        elif chosen.ints:
            chosen.ints.append(self._number())
        else:
            node.attribute.remove(chosen)

    def sizes(self) -> None:
        tensor = self._pick(self.graph.initializer)
        if tensor.dims and self.rng.random() < 0.8:
            tensor.dims[int(self.rng.integers(len(tensor.dims)))] = self._number()
        else:
            tensor.dims.append(self._number())

    def whole_weight(self) -> None:
        """A weight that is sound and does not fit what reads it."""
        tensor = self._pick(self.graph.initializer)
        array = numpy_helper.to_array(tensor)
        kinds = [
            lambda a: a[: max(len(a) - 1, 0)] if a.ndim else a,
            lambda a: np.swapaxes(a, 0, -1) if a.ndim > 1 else a,
            lambda a: a[None],
            lambda a: a.astype(self._pick([np.float64, np.float16, np.int64, np.uint8, np.bool_])),
            lambda a: np.array(a.flat[0] if a.size else 0, a.dtype),
        ]
        tensor.CopyFrom(numpy_helper.from_array(np.array(self._pick(kinds)(array)), tensor.name))

    def numbers(self) -> None:
        held = self.graph.initializer
        tensor = self._pick([t for t in held if t.data_type == onnx.TensorProto.INT64] or held)
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            value = self._number() if array.dtype == np.int64 else self._pick([0, 1, np.inf, np.nan])
            array.flat[int(self.rng.integers(array.size))] = value
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    def declared(self) -> None:
        value = self._pick([*self.graph.input, *self.graph.output, *self.graph.value_info])
        kind, dims = int(self.rng.integers(4)), value.type.tensor_type.shape.dim
        if kind == 0 and dims:
            dims[int(self.rng.integers(len(dims)))].dim_value = self._number()
        elif kind == 1:
            value.type.tensor_type.elem_type = int(self.rng.integers(0, 25))
        elif kind == 2:
            value.type.tensor_type.ClearField("shape")
        else:
            dims.add().dim_value = self._number()

    def operator(self) -> None:
        known = [n.op_type for n in self.graph.node] + [s.name for s in onnx.defs.get_all_schemas()]
        self._pick(self.graph.node).op_type = self._pick(known)

    def weight_type(self) -> None:
        self._pick(self.graph.initializer).data_type = int(self.rng.integers(0, 25))

    def order(self) -> None:
        at = int(self.rng.integers(len(self.graph.node)))
        if self.rng.random() < 0.5:
            del self.graph.node[at]
        else:
            self.graph.node.insert(at, self._pick(self.graph.node))

    def opset(self) -> None:
        self._pick(self.model.opset_import).version = self._number()

    def output(self) -> None:
        self._pick(self.graph.output).name = self._name()

    def _pick(self, some: Sequence[Any]) -> Any:  # noqa: ANN401 - messages have no types of their own
        return some[int(self.rng.integers(len(some)))]

    def _number(self) -> int:
        return int(self._pick(_NUMBERS)) if self.rng.random() < 0.6 else int(self.rng.integers(-4, 40))

    def _name(self) -> str:
        made = [name for node in self.graph.node for name in node.output]
        return str(self._pick([*made, *(t.name for t in self.graph.initializer), "", "nobody"]))


def seed_models() -> dict[str, bytes]:
    """Small networks of several kinds: the digits demo, and graphs in which sizes are computed and axes split."""
    rng = np.random.default_rng(0)

    def filled(text: str, **shapes: tuple[int, ...] | np.ndarray) -> bytes:
        model = parser.parse_model(text)
        for name, shape in shapes.items():
            array = shape if isinstance(shape, np.ndarray) else rng.standard_normal(shape).astype(np.float32) * 0.4
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        return model.SerializeToString()

    head = '<ir_version: 8, opset_import: ["" : 17]>\ng '
    residual = filled(
        head
        + """(float[n, 3, 8, 8] x) => (float[n, 5] y) {
        s = Conv <pads=[1,1,1,1]> (x, w0, b0)
        c = Conv <pads=[1,1,1,1]> (s, w1)
        b = BatchNormalization (c, g, h, m, v)
        r = Relu (b)
        d = Conv <pads=[1,1,1,1], group=8> (r, wd)
        t = Add (s, d)
        p, q = Split <axis=1> (t, parts)
        j = Concat <axis=1> (q, p)
        e = Pad (j, pads)
        l = Slice (e, from, to, axes)
        f = GlobalAveragePool (l)
        k = Reshape (f, shape)
        y = Gemm (k, w2, b2) }""",
        w0=(8, 3, 3, 3), b0=(8,), w1=(8, 8, 3, 3), g=(8,), h=(8,), m=(8,), v=np.ones(8, np.float32), wd=(8, 1, 3, 3),
        parts=np.array([5, 3]), pads=np.array([0, 2, 0, 0, 0, 0, 0, 0]), **{"from": np.array([1])}, to=np.array([9]),
        axes=np.array([1]), shape=np.array([0, -1]), w2=(8, 5), b2=(5,),
    )  # fmt: skip
    attention = filled(
        head
        + """(float[n, 6, 8] x) => (float[n, 6, 5] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        s = Shape (x)
        n = Gather <axis=0> (s, zero)
        n1 = Unsqueeze (n, first)
        to = Concat <axis=0> (n1, rest)
        q4 = Reshape (q, to)
        k4 = Reshape (k, to)
        v4 = Reshape (v, to)
        qt = Transpose <perm=[0,2,1,3]> (q4)
        kt = Transpose <perm=[0,2,3,1]> (k4)
        vt = Transpose <perm=[0,2,1,3]> (v4)
        a = MatMul (qt, kt)
        p = Softmax <axis=-1> (a)
        o = MatMul (p, vt)
        ot = Transpose <perm=[0,2,1,3]> (o)
        back = Reshape (ot, flat)
        l = LayerNormalization <axis=-1> (back, scale, shift)
        y = MatMul (l, wo) }""",
        wq=(8, 12), wk=(8, 12), wv=(8, 12), zero=np.array(0), first=np.array([0]), rest=np.array([6, 3, 4]),
        flat=np.array([0, 0, 12]), scale=(12,), shift=(12,), wo=(12, 5),
    )  # fmt: skip
    recurrent = filled(
        head
        + """(float[t, n, 6] x) => (float[t, n, 4] y) {
        a = MatMul (x, w0)
        b, h, c = LSTM <hidden_size=8> (a, W, R, B)
        s = Squeeze (b, one)
        g, i = GRU <hidden_size=5> (s, W1, R1)
        u = Squeeze (g, one)
        y = MatMul (u, w1) }""",
        w0=(6, 7), W=(1, 32, 7), R=(1, 32, 8), B=(1, 64), one=np.array([1]), W1=(1, 15, 8), R1=(1, 15, 5), w1=(5, 4),
    )  # fmt: skip
    return {
        "digits": Path(digits_model()).read_bytes(),
        "residual": residual,
        "attention": attention,
        "lstm": recurrent,
    }
