"""Gemm, MatMul and Einsum: sums of products over an axis of each operand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..labels import Layout
from . import Rule
from .elementwise import broadcast, same

if TYPE_CHECKING:
    from ..labels import Array
    from ..sweep import Sweep


def gemm(s: Sweep, at: int = 1, addend: int = 2) -> None:
    """Y = A' B' + C, where ' is an optional transpose: columns of A meet rows of B, columns of B become the output's.

    at, addend: which inputs hold B and C.
    """
    trans_a, trans_b = bool(s.node.attrs.get("transA", 0)), bool(s.node.attrs.get("transB", 0))
    inner_a, inner_b = (0 if trans_a else 1), (1 if trans_b else 0)
    rows, columns = s.axes(0)[1 - inner_a], s.axes(at)[1 - inner_b]
    plain = s.node.attrs.get("alpha", 1.0) == s.node.attrs.get("beta", 1.0) == 1.0
    layout = Layout(out=1 - inner_b, result=1, bias=addend, exact=plain and not s.node.attrs.get("activation"))
    s.contract((0, inner_a), (at, inner_b), layout)
    s.produces(columns)
    if s.is_moved_constant(0):
        s.produces(rows)
    if s.has(addend):
        broadcast(s, [(rows, columns), s.axes(addend)])
    s.set(0, (rows, columns))
    s.macs(1, (rows, columns, s.axes(0)[inner_a]))


def matmul(s: Sweep, at: int = 1) -> None:
    """numpy.matmul: batch axes broadcast, the last axis of A meets the last but one of B.

    at: which input holds B. transA and transB, which fused products have, swap the last two axes of an operand.
    """
    a, b = s.axes(0), s.axes(at)
    inner_a, outer_a = _last_two(len(a), swapped=bool(s.node.attrs.get("transA", 0)))
    outer_b, inner_b = _last_two(len(b), swapped=bool(s.node.attrs.get("transB", 0)))
    inner_b = max(inner_b, 0)
    result = len(s.out_shape()) - 1
    layout = Layout(outer_b if len(b) > 1 else None, result, exact=s.node.attrs.get("alpha", 1.0) == 1.0)
    s.contract((0, inner_a), (at, inner_b), layout)
    rows = (a[outer_a],) if len(a) > 1 else ()
    columns = (b[outer_b],) if len(b) > 1 else ()
    batch = broadcast(s, [a[:-2], b[:-2]])
    if s.is_moved_constant(at) and columns:
        s.produces(columns[0])
    if s.is_moved_constant(0) and rows:
        s.produces(rows[0])
    s.set(0, (*batch, *rows, *columns))
    s.macs(1, (*batch, *rows, *columns, a[inner_a]))


def _last_two(rank: int, *, swapped: bool) -> tuple[int, int]:
    """The last axis and the one before it; -1 where a vector has none."""
    return (rank - 2, rank - 1) if swapped and rank > 1 else (rank - 1, rank - 2)


def _einsum(s: Sweep) -> None:
    """A letter is an axis: its occurrences are tied; one that the result lacks is summed over."""
    parsed = _equation(s.node.attrs["equation"].replace(" ", ""))
    if parsed is None:
        s.opaque("Einsum with an ellipsis or a diagonal has no rule")
        return
    terms, right = parsed
    letters: dict[str, Array] = {}
    for position, term in enumerate(terms):
        for letter, labels in zip(term, s.axes(position), strict=True):
            before = letters.get(letter)
            if before is not None and len(before) == len(labels):
                labels = same(s, [before, labels])  # noqa: PLW2901 - the labels of both
            if before is None or len(before) <= len(labels):
                letters[letter] = labels
    for letter in sorted(set("".join(terms)) - set(right)):
        _sum_over(s, letter, terms)
    _einsum_produces(s, terms, right)
    s.set(0, tuple(letters[c] for c in right))
    s.macs(1, tuple(letters.values()))


def _equation(text: str) -> tuple[list[str], str] | None:
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if "." in text or any(len(set(term)) < len(term) for term in terms):
        return None
    if not arrow:
        right = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    return terms, right


def _einsum_produces(s: Sweep, terms: list[str], right: str) -> None:
    """Letters of a constant that only it brings into the result are channels that it makes."""
    for position, term in enumerate(terms):
        if s.is_moved_constant(position):
            others = "".join(t for i, t in enumerate(terms) if i != position)
            for axis, letter in enumerate(term):
                if letter in right and letter not in others:
                    s.produces(s.axes(position)[axis])


def _sum_over(s: Sweep, letter: str, terms: list[str]) -> None:
    where = [(i, t.index(letter)) for i, t in enumerate(terms) if letter in t]
    constants = [w for w in where if s.is_moved_constant(w[0])]
    others = [w for w in where if w not in constants]
    if constants and others:
        s.consume(others[0], constants[0], s.axes(constants[0][0])[constants[0][1]])
    elif constants:
        s.keep(s.axes(where[0][0])[where[0][1]], "sums a constant alone")
    else:
        s.mask(*where[0])


RULES = (
    Rule(
        "Gemm",
        gemm,
        samples={
            "transposed weight": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[2, 5] x) => (float[2, 3] y)
            <float[8, 5] w1, float[8] b1, float[8, 3] w2, float[3] b2> {
              a = Gemm <transB = 1> (x, w1, b1)
              r = Tanh (a)
              y = Gemm (r, w2, b2)
            }
            """,
            "weight first": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[5, 2] x) => (float[3, 2] y)
            <float[8, 5] w1, float[8, 1] b1, float[8, 3] w2> {
              a = Gemm <alpha = 0.5, beta = 2.0> (w1, x, b1)
              y = Gemm <transA = 1> (w2, a)
            }
            """,
        },
    ),
    Rule(
        "MatMul",
        matmul,
        samples={
            "weight second": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[2, 4, 5] x) => (float[2, 4, 3] y)
            <float[5, 8] w1, float[8] b1, float[8, 3] w2> {
              a = MatMul (x, w1)
              h = Add (a, b1)
              r = Relu (h)
              y = MatMul (r, w2)
            }
            """,
            "two activations": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[2, 4, 5] x) => (float[2, 4, 3] y)
            <float[5, 6] wq, float[5, 6] wk, float[5, 3] wv> {
              q = MatMul (x, wq)
              k = MatMul (x, wk)
              v = MatMul (x, wv)
              kt = Transpose <perm = [0, 2, 1]> (k)
              s = MatMul (q, kt)
              p = Softmax <axis = -1> (s)
              y = MatMul (p, v)
            }
            """,
            "a vector as the weight": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[2, 5] x) => (float[2] y)
            <float[5, 8] w1, float[8] w2> {
              a = MatMul (x, w1)
              y = MatMul (a, w2)
            }
            """,
        },
    ),
    Rule(
        "Einsum",
        _einsum,
        samples={
            "weight second": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[2, 4, 5] x) => (float[2, 4, 3] y)
            <float[5, 8] w1, float[3, 8] w2> {
              a = Einsum <equation = "blc,cd->bld"> (x, w1)
              y = Einsum <equation = "bld,ed->ble"> (a, w2)
            }
            """,
            "two activations": """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[2, 4, 5] x) => (float[2, 4, 4] y)
            <float[5, 6] wq, float[5, 6] wk> {
              q = MatMul (x, wq)
              k = MatMul (x, wk)
              y = Einsum <equation = "bid,bjd->bij"> (q, k)
            }
            """,
        },
    ),
)
