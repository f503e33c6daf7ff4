"""Attention as one operator: whole heads, entries of queries and keys, entries of values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import Rule

if TYPE_CHECKING:
    from ..cut import Cut
    from ..labels import Array
    from ..sweep import Sweep


def _attention(s: Sweep) -> None:
    """softmax(scale Q K') V a head: heads can go, or entries of queries and keys, or entries of values.

    Q, K, V are (batch, heads, length, size), or (batch, length, heads * size); several heads of Q may share one of K.
    """
    if any(s.has(i) for i in range(4, len(s.node.inputs))) or any(t.name for t in s.node.outputs[1:]):
        s.opaque("Attention with a cache has no rule")
        return
    flat = s.rank(0) == 3
    queries, keys, values = (s.axes(i) for i in range(3))
    for axes in (queries, keys, values):
        for axis in (axes[0], axes[-2]):
            s.keep(axis, "runs over this axis")
    counts = (int(s.node.attrs[name]) for name in ("q_num_heads", "kv_num_heads")) if flat else ()
    heads, deep, wide, shared = _packed(s, *counts) if flat else _apart(s)
    s.mask(0, len(queries) - 1)
    if s.has(3):
        *rest, _, _ = s.axes(3)
        for axis in s.axes(3)[-2:]:
            s.keep(axis, "runs over this axis")
        if rest and len(rest[-1]) > 1:
            s.tie(rest[-1], np.repeat(heads, shared))
    s.set(0, (*queries[:2], _joined(s, heads, wide, shared)) if flat else (*queries[:3], wide))
    _finish(s, heads, deep, wide, len(queries[-2]) * len(keys[-2]) * shared)


def _multi_head(s: Sweep) -> None:
    """Attention in ONNX Runtime's form, (batch, length, heads * size) with one bias for all three: heads can go."""
    if any(s.has(i) for i in range(6, len(s.node.inputs))) or any(t.name for t in s.node.outputs[1:]):
        s.opaque("MultiHeadAttention with a cache has no rule")
        return
    if not (s.has(1) and s.has(2)) or [s.rank(i) for i in range(3)] != [3, 3, 3]:
        s.opaque("MultiHeadAttention of packed operands has no rule")
        return
    queries, keys, values = (s.axes(i) for i in range(3))
    for axes in (queries, keys, values):
        for axis in axes[:2]:
            s.keep(axis, "runs over this axis")
    count = int(s.node.attrs["num_heads"])
    heads, deep, wide, _ = _packed(s, count, count)
    s.mask(0, 2)
    if s.has(3):
        (bias,) = s.axes(3)
        s.tie(bias, np.concatenate([queries[2], keys[2], values[2]]))
        s.labelled.consumed.append(bias[: len(queries[2])])  # a query is silent if its bias is
    for position in (4, 5):
        for axis in s.axes(position) if s.has(position) else ():
            s.keep(axis, "runs over this axis")
    s.set(0, (*queries[:2], _joined(s, heads, wide)))
    _finish(s, heads, deep, wide, len(queries[1]) * len(keys[1]))


def _projecting(s: Sweep) -> None:
    """Attention in ONNX Runtime's form, with its projections in one weight (I, q + k + v): heads and inputs can go."""
    if any(s.has(i) for i in (4, 6)) or s.node.attrs.get("do_rotary") or any(t.name for t in s.node.outputs[1:]):
        s.opaque("Attention with a cache or rotation has no rule")
        return
    if not s.is_moved_constant(1):
        s.opaque("Attention with a computed weight has no rule")
        return
    (batch, length, _), columns = s.axes(0), s.axes(1)[1]
    for axis in (batch, length):
        s.keep(axis, "runs over this axis")
    s.contract((0, 2), (1, 0))
    s.produces(columns)
    sizes = s.node.attrs.get("qkv_hidden_sizes") or [len(columns) // 3] * 3
    queries, keys, values = np.split(columns, np.cumsum(sizes)[:2])
    count = int(s.node.attrs["num_heads"])
    heads, deep, wide = (s.fresh(n) if n > 1 else s.fixed(1) for n in (count, sizes[0] // count, sizes[2] // count))
    for part, inner in ((queries, deep), (keys, deep), (values, wide)):
        s.split(part.reshape(count, -1), (heads, inner))
    s.labelled.consumed.append(queries)  # a query is silent if its weights and its bias are
    if s.has(2):
        (bias,) = s.axes(2)
        s.tie(bias, columns)
        s.labelled.consumed.append(bias[: len(queries)])
    for position in (3, 5):
        for number, axis in enumerate(s.axes(position) if s.has(position) else ()):
            if position == 5 and number == 1 and len(axis) == count:
                s.tie(axis, heads)
            else:
                s.keep(axis, "runs over this axis")
    s.set(0, (batch, length, _joined(s, heads, wide)))
    s.macs(len(length), (s.axes(0)[2], columns))
    _finish(s, heads, deep, wide, len(length) ** 2)


def _joined(s: Sweep, heads: Array, wide: Array, shared: int = 1) -> Array:
    """Labels of an axis of heads and their entries."""
    out = s.fresh(len(heads) * shared * len(wide))
    s.split(out.reshape(len(heads), shared, len(wide)), (heads, s.fixed(shared), wide))
    return out


def _finish(s: Sweep, heads: Array, deep: Array, wide: Array, pairs: int) -> None:
    s.note(heads, deep)
    s.macs(pairs, (heads, deep))
    s.macs(pairs, (heads, wide))


def _apart(s: Sweep) -> tuple[Array, Array, Array, int]:
    """Labels of the heads of K, of the entries of Q and K and of those of V; heads of Q a head of K."""
    queries, keys, values = (s.axes(i) for i in range(3))
    shared = len(queries[1]) // len(keys[1])
    s.tie(queries[1], np.repeat(keys[1], shared))
    s.tie(keys[1], values[1])
    s.tie(queries[3], keys[3])
    return keys[1], keys[3], values[3], shared


def _packed(s: Sweep, outer: int, count: int) -> tuple[Array, Array, Array, int]:
    """The same where heads and entries are one axis; outer, count: heads of Q and of K."""
    queries, keys, values = (s.axes(i)[2] for i in range(3))
    shared = outer // count
    heads, deep, wide = (s.fresh(n) if n > 1 else s.fixed(1) for n in (count, len(keys) // count, len(values) // count))
    s.split(queries.reshape(count, shared, -1), (heads, s.fixed(shared), deep))
    s.split(keys.reshape(count, -1), (heads, deep))
    s.split(values.reshape(count, -1), (heads, wide))
    return heads, deep, wide, shared


def _rewrite(cut: Cut) -> None:
    """The numbers of heads; and the scale, which else would follow the size of a head."""
    heads, deep = cut.note
    attributes = cut.node.attrs
    if "kv_num_heads" in attributes:
        shared = int(attributes["q_num_heads"]) // int(attributes["kv_num_heads"])
        attributes["kv_num_heads"] = cut.size(heads)
        attributes["q_num_heads"] = cut.size(heads) * shared
    if "num_heads" in attributes:
        attributes["num_heads"] = cut.size(heads)
    if cut.touched(deep) and not attributes.get("scale"):
        attributes["scale"] = 1 / float(np.sqrt(len(deep)))


def _rewrite_projecting(cut: Cut) -> None:
    """The number of heads, the scale, and how many columns are queries, keys and values."""
    _rewrite(cut)
    heads, deep = cut.note
    values = cut.size(cut.output_axes()[2])
    inner = cut.size(heads) * cut.size(deep)
    cut.node.attrs["qkv_hidden_sizes"] = [inner, inner, values]


def _sample(sizes: tuple[int, int, int, int], body: str, weights: str = "") -> str:
    queries, keys, values, out = sizes
    return f"""
        <ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]>
        g (float[2, 5, 4] x) => (float[2, 5, 3] y)
        <float[4, {queries}] wq, float[4, {keys}] wk, float[4, {values}] wv, float[{out}, 3] wo{weights}> {{
          q = MatMul (x, wq)
          k = MatMul (x, wk)
          v = MatMul (x, wv)
          {body}
          y = MatMul (z, wo)
        }}
        """


_APART = """
q4 = Reshape (q, sq)
qt = Transpose <perm = [0, 2, 1, 3]> (q4)
k4 = Reshape (k, sq)
kt = Transpose <perm = [0, 2, 1, 3]> (k4)
v4 = Reshape (v, sv)
vt = Transpose <perm = [0, 2, 1, 3]> (v4)
a = Attention (qt, kt, vt, m)
t = Transpose <perm = [0, 2, 1, 3]> (a)
z = Reshape (t, back)
"""
_SELF = """
    <ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>
    g (float[2, 5, 4] x) => (float[2, 5, 3] y)
    <float[4, 7] wi, float[7, 27] w, float[27] b, float[9, 3] wo{weights}> {{
      h = MatMul (x, wi)
      z = com.microsoft.Attention <{attributes}> (h, w, b{inputs})
      y = MatMul (z, wo)
    }}
    """
RULES = (
    Rule(
        "Attention",
        _attention,
        _rewrite,
        samples={
            "as many heads of keys": _sample(
                (6, 6, 9, 9), "z = Attention <q_num_heads = 3, kv_num_heads = 3> (q, k, v)"
            ),
            "fewer heads of keys than of queries": _sample(
                (8, 4, 6, 12), "z = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)"
            ),
            "four axes and a mask": _sample(
                (6, 6, 9, 9),
                _APART,
                ", int64[4] sq = {0, 0, 3, 2}, int64[4] sv = {0, 0, 3, -1}, int64[3] back = {0, 0, -1}, "
                "float[3, 5, 5] m",
            ),
        },
    ),
    Rule(
        "MultiHeadAttention",
        _multi_head,
        _rewrite,
        samples={
            "one bias for all three": _sample(
                (6, 6, 9, 9), "z = com.microsoft.MultiHeadAttention <num_heads = 3> (q, k, v, b)", ", float[21] b"
            ),
            "a mask and a scale": _sample(
                (6, 6, 6, 6),
                "z = com.microsoft.MultiHeadAttention <num_heads = 3, scale = 0.3> (q, k, v, , , m)",
                ", float[1, 1, 5, 5] m",
            ),
        },
        domain="com.microsoft",
    ),
    Rule(
        "Attention",
        _projecting,
        _rewrite_projecting,
        samples={
            "with its projections": _SELF.format(attributes="num_heads = 3", inputs="", weights=""),
            "values of another size and a mask": _SELF.format(
                attributes="num_heads = 3, qkv_hidden_sizes = [6, 6, 9]",
                inputs=", , , m",
                weights=", float[1, 3, 5, 5] m",
            )
            .replace("[7, 27]", "[7, 21]")
            .replace("[27]", "[21]"),
        },
        domain="com.microsoft",
    ),
)
